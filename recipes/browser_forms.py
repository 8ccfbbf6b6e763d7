"""Train a small agent to use real web pages in a real browser, on a CPU: MiniWoB++ pages and their own rewards.

With `--templates` the pages are those of the shipped sites (a shop, a forum, ...), judged by their databases; they are
longer, and take a larger model.

The tiny policy first imitates an agent that clicks and types whatever is there; what it gains after that is
reinforcement learning's. The pages are such that a model of a hundred thousand weights can read them; `--pages` names
others, for larger models.

    agent-rl train browser_forms
    agent-rl train browser_forms --pages login-user,click-checkboxes,choose-list --actions click,type,select
    agent-rl train browser_forms --model Qwen/Qwen3-4B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6 \\
        --pages all --actions ""
    agent-rl train browser_forms --model Qwen/Qwen3-4B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6 \\
        --templates shop,mail --actions "" --max-actions 8 --limits.max-turns 10 --limits.max-context-tokens 24000
"""

from __future__ import annotations

import functools

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.curriculum.schedules import linear
from agent_rl.environment import EnvironmentSpec
from agent_rl.learner.config import LearnerConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.warm_start import WarmStartConfig
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment, MiniwobConfig, SitesConfig
from agent_rl_envs.browser.curriculum import more_actions
from agent_rl_envs.browser.miniwob.pages import typed_names
from agent_rl_tools.browser import BrowserConfig, ViewConfig

VOCABULARY = (
    *"ONE TWO 1st 2nd 3rd button textbox focused ref text Submit browser_click browser_type".split(),
    *(f"e{number}" for number in range(1, 10)),
)


class Config(recipe.RecipeConfig):
    """Train an agent to use web pages."""

    pages: str = Field(
        default="click-test-2,click-button,focus-text-2,enter-text",
        description="Names of MiniWoB++ pages, separated by commas, or all.",
    )
    templates: str = Field(
        default="",
        description="Names of templates or apps of the shipped sites, separated by commas: tasks of theirs that take "
        "`max_actions` at most, instead of pages of MiniWoB++.",
    )
    actions: str = Field(
        default="click,type",
        description="The browser's tools, separated by commas; empty: all, which most templates of the sites need.",
    )
    max_actions: int = Field(default=4, ge=1, description="Actions of an episode.")
    first_actions: int = Field(
        default=0, ge=0, description="Horizon curriculum: actions at first, growing to max_actions; 0: none."
    )
    curriculum_steps: int = Field(default=20, ge=1, description="Training steps in which the horizon grows.")
    warm_start: WarmStartConfig = Field(
        default=WarmStartConfig(
            demonstrations=1500,
            batch_rows=32,
            check_every=100,
            check_episodes=48,
            max_implausible=0.3,
            learner=LearnerConfig(learning_rate=3e-3, warmup_steps=50, betas=(0.9, 0.95)),
        ),
        description="Imitation of an agent that acts at random, from which the tiny model starts.",
    )
    steps: int = Field(default=40, ge=1, description="Training steps, one batch of groups each.")
    groups_per_batch: int = Field(default=8, ge=1, description="Groups of siblings in a training step.")
    max_concurrent_episodes: int = Field(default=16, ge=1, description="Episodes in the browser at once.")
    eval_tasks: int = Field(default=96, ge=1, description="Held-out tasks that every agent is measured on.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=6, max_response_tokens=48, max_context_tokens=1024),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    width, height = (1280, 800) if config.templates else (400, 300)
    options = BrowserEnvConfig(
        source="sites" if config.templates else "miniwob",
        miniwob=MiniwobConfig(pages=config.pages),
        sites=SitesConfig(templates=config.templates, max_actions=config.max_actions),
        actions=config.actions,
        max_actions=config.max_actions,
        view=ViewConfig(observation="elements", header=False),
        browser=BrowserConfig(width=width, height=height, max_contexts=max(64, config.max_concurrent_episodes)),
    )
    curriculum = None
    if config.first_actions:
        horizon = linear(config.first_actions, config.max_actions, config.curriculum_steps * config.groups_per_batch)
        curriculum = functools.partial(more_actions, horizon=horizon)
    recipe.run(
        config,
        "browser_forms",
        EnvironmentSpec(BrowserEnvironment, options),
        vocabulary=[*VOCABULARY, *typed_names()],
        curriculum=curriculum,
    )


if __name__ == "__main__":
    run_recipe(Config, main)
