"""What is imitated beside reinforcement learning: a file of demonstrations, or the policy's own successes.

Either all of it, or where reinforcement learning has nothing to learn from: the tasks at which every episode fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

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
    only: Literal["all", "hardest"] = Field(
        default="all", description="hardest: only of tasks whose unguided episodes in the batch have all failed."
    )


Imitated: TypeAlias = Callable[[Sequence[Group], int], list[TrainingRow]]
"""What is imitated in a training step, from its groups and its number."""


def imitated(
    config: ImitationConfig, codec: ChatCodec, seed: int, seen: Callable[[Group], Group] = lambda group: group
) -> Imitated:
    """Rows for each step: drawn by (seed, step), or the step's own successes; groups are looked at as `seen`.

    With `hardest` and a file this is ReLIFT (arXiv:2506.07527), whose supervised steps are terms of the same steps
    here. Raises `UserError` for a bad file.
    """

    def chosen(groups: Sequence[Group]) -> list[Group]:
        looked_at = map(seen, groups)
        return [group for group in looked_at if config.only == "all" or hardest(group, config.success)]

    if config.demonstrations is None:
        return lambda groups, step: successes(chosen(groups), config.success)
    shown = read_demonstrations(codec, config.demonstrations, of_tasks=config.only == "hardest")

    def draw(groups: Sequence[Group], step: int) -> list[TrainingRow]:
        tasks = {group.task.id for group in chosen(groups)}
        rows = [row for task, of_task in shown.items() if config.only == "all" or task in tasks for row in of_task]
        picks = stream(seed, "imitated", step).choice(len(rows), min(config.rows, len(rows)), replace=False)
        return [rows[i] for i in picks]

    return draw


def hardest(group: Group, reward: float) -> bool:
    """Whether every episode without guidance earned less than `reward`, and there is one."""
    alone = [episode for episode in group.valid if episode.guidance is None]
    return bool(alone) and all(episode.reward < reward for episode in alone)


def successes(groups: Sequence[Group], reward: float) -> list[TrainingRow]:
    """The episodes whose reward is at least `reward`, as rows whose sampled tokens all weigh the same.

    Self-imitation (arXiv:1806.05635): the policy goes on doing what worked once, however rarely it does.
    """
    chosen = [replace(g, trajectories=tuple(t for t in g.valid if t.reward >= reward)) for g in groups]
    return to_rows(chosen, [_no_advantages(group) for group in chosen], "token_mean")


def _no_advantages(group: Group) -> Advantages:
    return tuple(tuple(np.zeros(len(s.token_ids_T), np.float32) for s in t.segments) for t in group.trajectories)
