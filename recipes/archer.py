"""ArCHer against policy gradients of whole episodes: how many samples until a game of many turns is won?

A corridor of rooms: in each, the colour of a sign says which of four doors leads on, which nobody knows at first; the
only reward comes with the last room. A policy gradient of whole episodes praises or blames all moves alike; ArCHer's
critic learns from every turn of the latest episodes how far each room is from the end, so that a move is worth what it
gained. All methods begin with the same policy, which says the room and the sign and then takes any door, as the agent
does that it imitates, with the same actor and the same episodes per step.
What is finished is not run again: more seeds or methods can be added to a folder with `--resume`.

    agent-rl train archer --run-dir runs/archer                                   # the table and the picture
    agent-rl train archer --run-dir runs/archer --resume --seeds 10               # five more seeds
    agent-rl train archer --methods archer --archer.utterance-critic.loss hl_gauss
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent_rl import method_comparison
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.utterance_critic import UtteranceCriticConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.train_config import TrainConfig
from agent_rl.warm_start import WarmStartConfig
from agent_rl_envs.games.corridor import DOORS, Corridor, CorridorConfig

LIMITS = RolloutLimits(max_turns=24, max_response_tokens=12, max_context_tokens=512)
VOCABULARY = (*DOORS, *DOORS.values())


class Training(TrainConfig):
    """What all methods share: the actor, the episodes, how long."""

    steps: int = Field(default=120, ge=1, description="Training steps.")
    groups_per_batch: int = Field(default=4, ge=1, description="Groups in one batch.")
    limits: RolloutLimits = Field(default=LIMITS, description="Limits of one episode.")
    learner: LearnerConfig = Field(
        default=LearnerConfig(learning_rate=1e-3, warmup_steps=10, minibatches=4, betas=(0.9, 0.95)),
        description="Loss and optimiser.",
    )
    checkpoint_every: int = Field(default=1000, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(default=1, ge=1, description="Checkpoints that stay on disk.")


class Archer(Training):
    """The actor with an utterance-level critic."""

    steps: int = Field(default=60, ge=1, description="Training steps.")
    estimator: str = Field(default="archer", description="Credit.")
    estimator_options: dict[str, float] = Field(
        default={"whiten": True, "positive": True}, description="Options of the credit."
    )
    utterance_critic: UtteranceCriticConfig = Field(
        default=UtteranceCriticConfig(
            learning_rate=1e-3,
            betas=(0.9, 0.95),
            advantage="td",
            double="independent",
            tau=0.5,
            updates=8,
            groups_per_update=4,
            alone_steps=5,
        ),
        description="How values of whole turns are learned.",
    )


class Rloo(Training):
    """REINFORCE with the mean of the other episodes of a task as baseline."""

    estimator: str = Field(default="rloo", description="Credit.")


class Grpo(Training):
    """The same, divided by the deviation."""

    estimator: str = Field(default="grpo", description="Credit.")


class Config(method_comparison.ComparisonConfig):
    """Compare ArCHer with policy gradients of whole episodes."""

    methods: tuple[Literal["archer", "rloo", "grpo"], ...] = Field(
        default=("archer", "rloo"), description="What is compared."
    )
    archer: Archer = Field(default_factory=Archer, description="Options of archer.")
    rloo: Rloo = Field(default_factory=Rloo, description="Options of rloo.")
    grpo: Grpo = Field(default_factory=Grpo, description="Options of grpo.")
    game: CorridorConfig = Field(default=CorridorConfig(), description="The corridor.")
    warm_start: WarmStartConfig = Field(
        default=WarmStartConfig(
            demonstrations=200,
            batch_rows=12,
            max_steps=300,
            last_steps=30,
            check_every=60,
            check_episodes=32,
            learner=LearnerConfig(learning_rate=5e-3, warmup_steps=50, betas=(0.9, 0.95)),
        ),
        description="Imitation of an agent that moves at random, from which all runs start.",
    )


def main(config: Config) -> None:
    """Run what is not finished, then compare."""
    environment = EnvironmentSpec(Corridor, config.game)
    methods = {"archer": config.archer, "rloo": config.rloo, "grpo": config.grpo}
    method_comparison.compare(config, "archer", environment, methods, limits=LIMITS, vocabulary=VOCABULARY)


if __name__ == "__main__":
    run_recipe(Config, main)
