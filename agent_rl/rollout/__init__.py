"""Rollouts: episodes, groups of siblings, and the manager that runs many of them under limits and deadlines."""
