"""What must survive a crash: the journal of finished groups, checkpoints, and metrics. Imports without torch."""
