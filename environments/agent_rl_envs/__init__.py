"""Environments shipped with agent-rl, one package or module each."""
