"""What each attempt at a failed group's task is given. Knows tasks and failed episodes, not how either is played.

A new kind is one function and one line in `GUIDES`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agent_rl.errors import UserError
from agent_rl.guidance.config import GuidanceConfig, GuidanceKind
from agent_rl.guidance.transcript import actions_as_text, ending
from agent_rl.seeding import stream
from agent_rl.types import Guidance, Message, Task, Trajectory

Expert: TypeAlias = Callable[[], Awaitable[tuple[Message, ...]]]
"""All actions of an episode of the task that succeeds; none when the expert fails, too."""

Ask: TypeAlias = Callable[[Sequence[str]], Awaitable[list[str]]]
"""Answers of whoever criticises, one for each question."""


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """A task, the episodes that failed at it, and the round of guidance that is due, from 1."""

    task: Task
    failed: Sequence[Trajectory]
    round: int
    seed: int
    expert: Expert
    ask: Ask


Guide: TypeAlias = Callable[[GuidanceConfig, FailedGroup], Awaitable[list[Guidance]]]
"""Guidance for each attempt of a round; none where nothing can help."""


async def hint(config: GuidanceConfig, group: FailedGroup) -> list[Guidance]:
    """The first part of the task's `hint`, a text or a list of steps; without one, of the expert's actions.

    Agent-RLVR (arXiv:2506.11425): failed attempts are tried again with a plan, and with feedback on the error. GHPO
    (arXiv:2507.10628): a part of the solution is shown where all attempts fail, and more of it if that does not do.
    """
    said = group.task.data.get("hint")
    if said is None:
        said = actions_as_text(await group.expert())
    separator = " " if isinstance(said, str) else "\n"
    parts = said.split() if isinstance(said, str) else _texts(group.task, "hint", said)
    if not parts:
        return []
    shown = separator.join(parts[: math.ceil(min(1.0, config.share * group.round) * len(parts))])
    return [_told("hint", config, group, place, f"Hint: {shown}") for place in range(config.attempts)]


async def knowledge(config: GuidanceConfig, group: FailedGroup) -> list[Guidance]:
    """In round k each attempt is given k of the task's `knowledge` points: other ones than the attempt beside it.

    KnowRL (arXiv:2604.12627): guidance is a set of points that should be as small as it can be. Its search for such
    sets, done before training, is one over rounds here: the smallest sets first, until one is enough.
    """
    points = _texts(group.task, "knowledge", group.task.data.get("knowledge"))
    if not points:
        return []
    count, size = len(points), min(group.round, len(points))
    order = stream(group.seed, group.task.id, "knowledge", group.round).permutation(count).tolist()
    sets = [sorted(order[(place + i) % count] for i in range(size)) for place in range(config.attempts)]
    told = ["What you need to know:\n" + "\n".join(f"- {points[i]}" for i in chosen) for chosen in sets]
    return [_told("knowledge", config, group, place, text) for place, text in enumerate(told)]


async def critique(config: GuidanceConfig, group: FailedGroup) -> list[Guidance]:
    """A failed attempt and what is wrong with it, in the words of the teacher or of the policy itself.

    Critique-GRPO (arXiv:2506.03106): failures are refined by the light of a critique, and refinements are learnt.
    """
    from agent_rl.guidance.critique import criticised, question

    attempts = [group.failed[place % len(group.failed)] for place in range(config.attempts)]
    answers = await group.ask([question(attempt, config.attempt_chars, group.seed) for attempt in attempts])
    return [
        Guidance("critique", criticised(attempt, answer, config.attempt_chars), round=group.round)
        for attempt, answer in zip(attempts, answers, strict=True)
        if answer.strip()
    ]


async def prefix(config: GuidanceConfig, group: FailedGroup) -> list[Guidance]:
    """The first actions of the expert are played; at least the last one is left to the policy.

    PrefixRL (arXiv:2601.18795): on-policy training from states on the way of a success, which are context and not
    learnt; there tokens of one answer, here whole actions. The share says how much is left to do.
    """
    actions = await group.expert()
    count = min(math.ceil(config.share * group.round * len(actions)), len(actions) - 1)
    if count < 1:
        return []
    return [Guidance("prefix", actions=actions[:count], round=group.round)] * config.attempts


GUIDES: Mapping[GuidanceKind, Guide] = {
    "hint": hint,
    "knowledge": knowledge,
    "critique": critique,
    "prefix": prefix,
}


def _told(kind: GuidanceKind, config: GuidanceConfig, group: FailedGroup, place: int, text: str) -> Guidance:
    if config.feedback:
        said = ending(group.failed[place % len(group.failed)], config.attempt_chars)
        text = f"An earlier attempt ended with: {said}\n{text}" if said else text
    return Guidance(kind, text, round=group.round)


def _texts(task: Task, name: str, value: object) -> list[str]:
    """Raises `UserError` for what is no list of texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        wanted = "a text or a list of texts" if name == "hint" else "a list of texts"
        raise UserError(f"Task {task.id!r} is to be guided: its data needs {name!r}, {wanted}.")
    return list(value)
