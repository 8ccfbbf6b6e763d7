"""Mend real repositories until their tests pass, and make such tasks of packages that have tests."""

from agent_rl_envs.swe.environment import SweConfig, SweEnvironment

__all__ = ["SweConfig", "SweEnvironment"]
