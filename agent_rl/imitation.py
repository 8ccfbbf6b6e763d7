"""What is imitated beside reinforcement learning: a file of demonstrations, or the policy's own successes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from pydantic import Field

from agent_rl.chat.codec import ChatCodec
from agent_rl.config import Config
from agent_rl.credit.estimator import Advantages
from agent_rl.credit.rows import to_rows
from agent_rl.learner.demonstrations import read_demonstrations
from agent_rl.seeding import stream
from agent_rl.types import Group, TrainingRow


class ImitationConfig(Config):
    """Where the rows come from whose imitation `learner.imitation_coefficient` weighs."""

    demonstrations: Path | None = Field(
        default=None, description="A JSONL file of chats to imitate; none: the policy's own successes in each batch."
    )
    rows: int = Field(default=16, ge=1, description="Demonstrations drawn from the file at each step.")
    success: float = Field(default=1.0, description="Reward from which an episode of the policy is a success.")


Imitated: TypeAlias = Callable[[Sequence[Group], int], list[TrainingRow]]
"""What is imitated in a training step, from its groups and its number."""


def imitated(config: ImitationConfig, codec: ChatCodec, seed: int) -> Imitated:
    """Rows for each step: drawn by (seed, step), or the step's own successes. Raises `UserError` for a bad file."""
    if config.demonstrations is None:
        return lambda groups, step: successes(groups, config.success)
    shown = read_demonstrations(codec, config.demonstrations)

    def draw(groups: Sequence[Group], step: int) -> list[TrainingRow]:
        picks = stream(seed, "imitated", step).choice(len(shown), min(config.rows, len(shown)), replace=False)
        return [shown[i] for i in picks]

    return draw


def successes(groups: Sequence[Group], reward: float) -> list[TrainingRow]:
    """The episodes whose reward is at least `reward`, as rows whose sampled tokens all weigh the same.

    Self-imitation (arXiv:1806.05635): the policy goes on doing what worked once, however rarely it does.
    """
    chosen = [replace(g, trajectories=tuple(t for t in g.valid if t.reward >= reward)) for g in groups]
    return to_rows(chosen, [_no_advantages(group) for group in chosen], "token_mean")


def _no_advantages(group: Group) -> Advantages:
    return tuple(tuple(np.zeros(len(s.token_ids_T), np.float32) for s in t.segments) for t in group.trajectories)
