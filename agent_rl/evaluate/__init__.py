"""Scores with intervals: the statistics and the harness that runs a policy over held-out tasks."""
