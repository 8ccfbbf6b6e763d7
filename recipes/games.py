"""Train a small agent to play a game of text, on a CPU, in minutes: a learning curve to look at.

The tiny policy first imitates the game's random agent, which plays by the rules without any strategy; what it gains
after that is reinforcement learning's. Sizes are such that a model of a hundred thousand weights can learn the game;
`--options` sets others.

    agent-rl train games
    agent-rl train games --game bandit
    agent-rl train games --game wordle --model Qwen/Qwen3-0.6B --options words 100 --device cuda --dtype bfloat16 \\
        --learner.learning-rate 1e-6
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.learner.config import LearnerConfig
from agent_rl.registry import environment_spec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.warm_start import WarmStartConfig

Game = Literal["bandit", "corridor", "guess_number", "maze", "sat", "text_navigation", "twenty_questions", "wordle"]
Option = int | float | bool | str

SMALL: dict[Game, dict[str, Option]] = {
    "bandit": {"arms": 4, "gap": 0.8, "turns": 12},
    "corridor": {"rooms": 4, "moves": 8},
    "guess_number": {"high": 200},
    "maze": {"size": 4, "open_share": 0.4, "view": "compass", "weights.solved": 0.5, "weights.progress": 0.5},
    "sat": {"level": 0, "attempts": 3},
    "text_navigation": {"rooms": 3, "distractors": 1},
    "twenty_questions": {"objects": 60, "turns": 12},
    "wordle": {"words": 100},
}
EARNED = 0.6  # of what the best button pays: bandits have no other success, and nobody knows that button at first
VOCABULARY = "north south west east row column red blue green yellow higher lower".split()


class Config(recipe.RecipeConfig):
    """Train an agent to play a game."""

    game: Game = Field(default="maze", description="Which game.")
    options: dict[str, Option] = Field(
        default_factory=dict, description="Options of the game, over those that make it small."
    )
    warm_start: WarmStartConfig = Field(
        default=WarmStartConfig(
            max_steps=1000,
            max_implausible=0.08,  # where a move is forbidden by what stands far back, imitation gets there slowly
            learner=LearnerConfig(learning_rate=5e-3, warmup_steps=50, betas=(0.9, 0.95)),
        ),
        description="Imitation of the game's random agent, from which the tiny model starts.",
    )
    steps: int = Field(default=100, ge=1, description="Training steps, one batch of groups each.")
    estimator: str = Field(default="gigpo", description="Credit: moves are compared with others from the same state.")
    estimator_options: dict[str, float] = Field(
        default={"gamma": 0.9, "step_weight": 1.0}, description="The estimator's own options."
    )
    groups_per_batch: int = Field(default=16, ge=1, description="Groups of siblings in a training step.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=24, max_response_tokens=16, max_context_tokens=1024),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    spec = environment_spec(config.game, {**SMALL[config.game], **config.options})
    if config.game == "bandit" and "success_threshold" not in config.model_fields_set:
        config = config.model_copy(update={"success_threshold": EARNED})
    recipe.run(config, "games", spec, vocabulary=VOCABULARY)


if __name__ == "__main__":
    run_recipe(Config, main)
