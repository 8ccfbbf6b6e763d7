"""Packed rows with advantages in, new weights out. Importing `agent_rl.learner.batch` or `.config` needs no torch."""
