"""Questions about small SQLite databases, answered through read-only queries."""

from agent_rl_envs.sql.environment import SqlEnvironment

__all__ = ["SqlEnvironment"]
