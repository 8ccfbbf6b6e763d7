"""Questions about small SQLite databases, answered through read-only queries."""

from agent_rl_envs.sql.environment import SqlEnvironment
from agent_rl_envs.sql.problems import VOCABULARY

__all__ = ["VOCABULARY", "SqlEnvironment"]
