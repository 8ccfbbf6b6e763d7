"""What happens to a group that failed: attempts with a hint, knowledge, a critique or an expert's first actions."""
