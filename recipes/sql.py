"""Train an agent that answers questions about databases with SQL, scored by what its queries return.

Databases are made, or come from Spider, BIRD, WikiSQL or rows of your own; they live in SQLite, DuckDB, PostgreSQL or
MariaDB. The reward is execution with a little of Reasoning-SQL's partial terms (arXiv:2503.23157), so that a policy
that is seldom right learns which tables and columns matter. The paper's judgement by a model is not among them.
CogniSQL-R1-Zero (arXiv:2507.06013) is execution and format alone: set the other weights to 0.

    agent-rl train sql --model Qwen/Qwen3-0.6B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6
    agent-rl train sql --model ... --sql.rows.source spider/train_spider.json --sql.format spider
    agent-rl train sql --steps 2 --eval-tasks 16     # the tiny model: shows that it runs, and learns little
"""

from __future__ import annotations

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl_envs.sql import SqlConfig, SqlEnvironment

PARTIAL = {"execution": 1.0, "syntax": 0.1, "schema_linking": 0.1, "ngram": 0.1, "format": 0.1}
"""Wrong queries get at most 0.4, so that `success_threshold` 1 counts those that are right."""


class Config(recipe.RecipeConfig):
    """Train an agent that answers questions about databases with SQL."""

    sql: SqlConfig = Field(default=SqlConfig(weights=PARTIAL), description="Questions, databases and rewards.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=6, max_response_tokens=384, max_context_tokens=4096),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    recipe.run(config, "sql", EnvironmentSpec(SqlEnvironment, config.sql))


if __name__ == "__main__":
    run_recipe(Config, main)
