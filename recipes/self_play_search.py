"""Train one model to ask questions for a search engine and to answer them: Search Self-play (arXiv:2510.18821).

A proposer is given an answer, searches, and asks a question that has it. A question counts only if the model finds the
answer in the documents that the proposer was shown. Solvers then search for it; they are compared with each other, and
the proposer, which earns what they do not solve, with those that were given the same answer. No question is written by
anybody else: training needs answers alone. What is measured is solving, on the questions of `search`.

It starts from a checkpoint that knows tool calls, and learns what it can from questions that it can find at all.

    agent-rl train self_play_search --model Qwen/Qwen3-4B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6
    agent-rl train self_play_search --model Qwen/Qwen3-4B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6 \\
        --search.rows.source nq.jsonl --search.format nq --search.corpus.kind index --search.corpus.index wiki
"""

from __future__ import annotations

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl_envs.search import SelfPlayConfig, SelfPlayEnvironment


class Config(recipe.RecipeConfig):
    """Train one model as the proposer and the solver of search questions."""

    model: str = Field(description="Hub id or folder of a checkpoint that knows tool calls.")
    search: SelfPlayConfig = Field(
        default=SelfPlayConfig(style="search_r1"), description="Answers, corpus, and how many solvers."
    )
    estimator: str = Field(default="roles", description="Credit: each role against itself.")
    shaping: str | None = Field(
        default="role_rewards", description="What a question was worth goes to its proposer when solvers have tried it."
    )
    group_size: int = Field(default=4, ge=1, description="Proposals for one answer.")
    groups_per_batch: int = Field(default=16, ge=1, description="Groups in one batch.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=32, max_response_tokens=512, max_context_tokens=8192),
        description="Limits of one episode, all roles together; of contexts, those of each.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    recipe.run(config, "self_play_search", EnvironmentSpec(SelfPlayEnvironment, config.search))


if __name__ == "__main__":
    run_recipe(Config, main)
