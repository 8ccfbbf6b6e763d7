"""Multi-hop questions that are answered by searching and reading."""

from agent_rl_envs.search.config import CorpusConfig, SearchConfig
from agent_rl_envs.search.environment import SearchEnvironment
from agent_rl_envs.search.self_play import SelfPlayConfig, SelfPlayEnvironment

__all__ = ["CorpusConfig", "SearchConfig", "SearchEnvironment", "SelfPlayConfig", "SelfPlayEnvironment"]
