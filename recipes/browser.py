"""Train an agent on web apps in a real browser while its horizon grows, as TTI does (arXiv:2506.07976).

Episodes may take few turns at first and more as training goes: short ones teach to act, long ones to look around, to go
back and to plan. The tasks are those of the shipped sites (a shop, a forum, mail, ...), judged by their databases.

WebRL (arXiv:2411.02337) has three more parts. Two are options: `--learner.kl-coefficient 0.01` holds the policy near
what it began as, and `--learner.imitation.coefficient 0.1` imitates what succeeded in each batch (WebRL replays older
successes as well). Of the third, new tasks made from failures, `--curriculum.kind weakness --curriculum.domain task`
has a half: what fails more and more comes again, but no task is written.

    agent-rl train browser --model Qwen/Qwen3-4B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6
    agent-rl train browser --templates shop --steps 2 --eval-tasks 4   # the tiny model: shows that it runs
"""

from __future__ import annotations

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.curriculum.config import CurriculumConfig
from agent_rl.environment import EnvironmentSpec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.warm_start import WarmStartConfig
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment, SitesConfig
from agent_rl_tools.browser import BrowserConfig, ViewConfig


class Config(recipe.RecipeConfig):
    """Train an agent on web apps, with a horizon that grows."""

    templates: str = Field(
        default="", description="Names of templates or apps of the sites, separated by commas; empty: all."
    )
    max_actions: int = Field(default=16, ge=1, description="Actions of the longest tasks.")
    curriculum: CurriculumConfig = Field(
        default=CurriculumConfig(first_turns=4, growth_steps=60), description="How the horizon grows; which tasks come."
    )
    warm_start: WarmStartConfig = Field(
        default=WarmStartConfig(
            demonstrations=16, max_steps=20, last_steps=5, check_every=10, check_episodes=4, max_implausible=1.0
        ),
        description="Imitation of the random agent, from which the tiny model starts.",
    )
    groups_per_batch: int = Field(default=8, ge=1, description="Groups of siblings in a training step.")
    max_concurrent_episodes: int = Field(default=16, ge=1, description="Episodes in the browser at once.")
    eval_tasks: int = Field(default=64, ge=1, description="Held-out tasks that every agent is measured on.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=20, max_response_tokens=512, max_context_tokens=24576),
        description="Limits of one episode, when the horizon has grown.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    options = BrowserEnvConfig(
        source="sites",
        sites=SitesConfig(templates=config.templates, max_actions=config.max_actions),
        actions="",
        max_actions=config.limits.max_turns,
        view=ViewConfig(observation="elements", header=False),
        browser=BrowserConfig(width=1280, height=800, max_contexts=max(64, config.max_concurrent_episodes)),
    )
    recipe.run(config, "browser", EnvironmentSpec(BrowserEnvironment, options))


if __name__ == "__main__":
    run_recipe(Config, main)
