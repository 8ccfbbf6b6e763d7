"""Train an agent that mends repositories, scored by their tests.

Without rows, bugs are planted in the small package that ships with the environment. `agent-rl swe make` makes tasks of
packages that you name; SWE-bench, SWE-Gym and R2E rows are read as they are. One attempt that fails gets guidance and
another try, in the same episode (after Agent-RLVR, arXiv:2506.11425, whose model tries again from the beginning and
learns by DPO). `--estimator rloo` gives LOOP's credit (arXiv:2502.01600). The reward has a little of each partial term,
so that a policy that is seldom right learns what a patch looks like (SWE-RL, arXiv:2502.18449).

    agent-rl swe make click toolz inflection --count 200 --output tasks
    agent-rl train swe --model Qwen/Qwen3-4B --device cuda --dtype bfloat16 \\
        --learner.learning-rate 1e-6 --swe.rows.source tasks
    agent-rl train swe --steps 2 --eval-tasks 4     # the tiny model: shows that it runs, and learns nothing
"""

from __future__ import annotations

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.warm_start import WarmStartConfig
from agent_rl_envs.swe import SweConfig, SweEnvironment

PARTIAL = {"resolved": 1.0, "fail_to_pass": 0.1, "patch_similarity": 0.1, "submitted": 0.05}
"""What is not resolved gets at most 0.25, so that `success_threshold` 1 counts what is."""


class Config(recipe.RecipeConfig):
    """Train an agent that mends repositories."""

    swe: SweConfig = Field(
        default=SweConfig(weights=PARTIAL, attempts=2, max_observation_chars=4000),
        description="Repositories, attempts, guidance and rewards.",
    )
    warm_start: WarmStartConfig = Field(
        default=WarmStartConfig(
            demonstrations=16, max_steps=20, last_steps=5, check_every=10, check_episodes=4, max_implausible=1.0
        ),
        description="Imitation of the random agent, from which the tiny model starts.",
    )
    groups_per_batch: int = Field(default=4, ge=1, description="Groups of one training step.")
    group_size: int = Field(default=4, ge=2, description="Episodes of one task.")
    max_concurrent_episodes: int = Field(default=8, ge=1, description="Episodes in flight, a sandbox each.")
    eval_tasks: int = Field(default=32, ge=1, description="Held-out tasks that every agent is measured on.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(
            max_turns=24,
            max_response_tokens=1024,
            max_context_tokens=24576,
            step_timeout_s=900.0,
            setup_timeout_s=1800.0,
            episode_timeout_s=3600.0,
        ),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    recipe.run(config, "swe", EnvironmentSpec(SweEnvironment, config.swe))


if __name__ == "__main__":
    run_recipe(Config, main)
