"""Shell tasks with hidden checkers: directories of Harbor and Terminal-Bench, or made up."""

from agent_rl_envs.terminal.environment import TerminalConfig, TerminalEnvironment

__all__ = ["TerminalConfig", "TerminalEnvironment"]
