"""Tools shipped with agent-rl, one module each."""
