"""Train a small agent that answers questions about databases it has never seen, on a CPU, in minutes.

The policy starts from random weights. A short warm start imitates episodes of a demonstrator that knows the tools and
the format but picks at random between plausible queries; reinforcement learning from outcomes must find out which
query a question calls for. `--model <hub id or folder>` trains a real checkpoint with the same code instead.

    agent-rl train quickstart
    agent-rl train quickstart --hard                        # every task needs two dependent queries; longer
    agent-rl train quickstart --control shuffled_rewards    # the same run with rewards that mean nothing
    agent-rl train quickstart --model Qwen/Qwen3-0.6B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6
"""

from __future__ import annotations

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl_envs.sql_lookup import VOCABULARY, SqlLookup, SqlLookupConfig

DEMONSTRATED_SHARE = 0.4  # of two-query tasks: rarer ones would be learned too late to be imitated well


class Config(recipe.RecipeConfig):
    """Train an agent that looks at a database's schema, queries it and answers."""

    hard: bool = Field(
        default=False, description="Only tasks that need two dependent queries, with four times the steps."
    )
    two_query_share: float = Field(
        default=0.12, ge=0, le=1, description="Share of tasks that need two dependent queries."
    )
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=6, max_response_tokens=48, max_context_tokens=512),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    if config.hard:
        config = config.model_copy(update={"hard": False, "two_query_share": 1.0, "steps": 4 * config.steps})
    share = config.two_query_share
    demonstrated = _databases(max(DEMONSTRATED_SHARE, share))
    recipe.run(config, "quickstart", _databases(share), demonstrated=demonstrated, vocabulary=VOCABULARY)


def _databases(two_query_share: float) -> EnvironmentSpec:
    return EnvironmentSpec(SqlLookup, SqlLookupConfig(two_query_share=two_query_share))


if __name__ == "__main__":
    run_recipe(Config, main)
