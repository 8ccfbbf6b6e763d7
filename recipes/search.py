"""Train an agent that answers questions in several hops by searching a corpus that it has never seen.

By default the corpus is a made-up world, so that nothing can be known beforehand: the policy has to learn which words
find what a question asks for, and to go on from what it found. It starts from a checkpoint that knows tool calls; names
that nobody has seen are too much for a tiny model from random weights.

It is Search-R1 (arXiv:2503.09516) with GRPO: exact match as the only reward, and what a search shows is in the context
but in no loss. With `--search.style deep_research`, `--search.corpus.kind web` and F1 as the reward (`search.weights`
in a config file) it is after DeepResearcher (arXiv:2504.03160), except that the policy reads pages itself.

    agent-rl train search --model Qwen/Qwen3-0.6B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6
    agent-rl train search --model Qwen/Qwen3-0.6B --search.rows.source hotpotqa/hotpot_qa:distractor
"""

from __future__ import annotations

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl_envs.search import SearchConfig, SearchEnvironment


class Config(recipe.RecipeConfig):
    """Train an agent that answers questions in several hops by searching."""

    model: str = Field(description="Hub id or folder of a checkpoint that knows tool calls.")
    search: SearchConfig = Field(default=SearchConfig(style="search_r1"), description="Questions, corpus and rewards.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=8, max_response_tokens=512, max_context_tokens=8192),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    recipe.run(config, "search", EnvironmentSpec(SearchEnvironment, config.search))


if __name__ == "__main__":
    run_recipe(Config, main)
