"""Sandbox backends shipped with agent-rl, one module each."""
