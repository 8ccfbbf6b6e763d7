"""Questions with one right value, answered with a Python interpreter at hand."""

from agent_rl_envs.maths.environment import MathsConfig, MathsEnvironment
from agent_rl_envs.maths.problems import VOCABULARY

__all__ = ["VOCABULARY", "MathsConfig", "MathsEnvironment"]
