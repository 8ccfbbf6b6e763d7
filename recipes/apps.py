"""Train an agent that does tasks on a phone, by calling the documented APIs of its apps (AppWorld and LOOP in small).

LOOP (arXiv:2502.01600) is PPO with a clip per token and the mean of the other episodes of a task as baseline, without a
critic and without a division by the deviation; the reward looks at the state that an episode leaves.

Without `--model` a tiny policy imitates a demonstrator that does the right thing four times of five and otherwise calls
anything: a smoke test of the whole loop on a CPU. The tasks themselves need a real checkpoint.

    agent-rl train apps --model Qwen/Qwen3-4B --device cuda --dtype bfloat16 \\
        --learner.learning-rate 1e-6 --max-difficulty 3
    agent-rl train apps                                     # the tiny policy, easiest tasks
"""

from __future__ import annotations

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl_envs.apps import AppsConfig, AppsEnvironment
from agent_rl_envs.apps.apis import APPS

NOISE = 0.2
VOCABULARY = sorted({name for app in APPS for name in (app.name, *(api.name for api in app.offered()))})


class Config(recipe.RecipeConfig):
    """Train an agent to do tasks with the apps of a phone."""

    templates: str = Field(default="", description="Names of templates, separated by commas; empty: all.")
    max_difficulty: int = Field(default=1, ge=1, le=3, description="Leave out harder templates.")
    estimator: str = Field(default="rloo", description="Credit: leave-one-out, LOOP's.")
    goal_weight: float = Field(
        default=0.5, ge=0, le=1, description="Weight of the share of checks that pass; the rest is for success."
    )
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=16, max_response_tokens=256, max_context_tokens=4096),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    weights = {"goal": config.goal_weight, "success": 1 - config.goal_weight}
    options = AppsConfig(templates=config.templates, max_difficulty=config.max_difficulty, weights=weights)
    demonstrated = EnvironmentSpec(AppsEnvironment, options.model_copy(update={"noise": NOISE}))
    recipe.run(
        config, "apps", EnvironmentSpec(AppsEnvironment, options), demonstrated=demonstrated, vocabulary=VOCABULARY
    )


if __name__ == "__main__":
    run_recipe(Config, main)
