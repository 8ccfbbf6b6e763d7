"""The `browser` environment: tasks on real pages in a real Chromium."""

from agent_rl_envs.browser.environment import BrowserEnvConfig, BrowserEnvironment
from agent_rl_envs.browser.miniwob.source import MiniwobConfig
from agent_rl_envs.browser.sites.source import SitesConfig
from agent_rl_envs.browser.sources import Assignment, TaskSource, Verdict

__all__ = [
    "Assignment",
    "BrowserEnvConfig",
    "BrowserEnvironment",
    "MiniwobConfig",
    "SitesConfig",
    "TaskSource",
    "Verdict",
]
