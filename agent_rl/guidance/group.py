"""Groups that are given guidance where they fail: what plays a group in training. Knows when, not what is given.

All is decided by the group's own episodes, index and seed, and a group is handed on (and made durable) with its guided
members: whatever runs beside it, and after a resume, the same attempts are given the same.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from agent_rl.concurrency import collect
from agent_rl.errors import UserError
from agent_rl.guidance.config import GuidanceConfig
from agent_rl.guidance.guides import GUIDES, FailedGroup
from agent_rl.guidance.task import demonstrated, guided_task, question_task
from agent_rl.guidance.teacher import ask_teacher
from agent_rl.rollout.group import PlayEpisode, run_group
from agent_rl.types import Group, Guidance, Message, Task, Trajectory

_logger = logging.getLogger(__name__)


class GuidedGroups:
    """A `PlayGroup`. `expert` plays an episode that shows how it is done, such as the environment's oracle does.

    A group with at most `up_to` successes gets further members, guided and numbered behind the others. Where nobody
    can help (a teacher that does not answer, an expert that fails) it stays as it is.
    """

    def __init__(self, config: GuidanceConfig, expert: PlayEpisode) -> None:
        self._config = config
        self._expert = expert

    async def __call__(
        self,
        play: PlayEpisode,
        task: Task,
        *,
        index: int,
        group_size: int,
        seed: int,
        max_attempts: int = 3,
        retry_delay_s: float = 1.0,
    ) -> Group:
        """See `run_group`."""
        again = partial(run_group, play, index=index, seed=seed, max_attempts=max_attempts, retry_delay_s=retry_delay_s)
        group = await again(task, group_size=group_size)
        failed = [episode for episode in group.valid if not _succeeds(episode, self._config)]
        if not failed or len(group.valid) - len(failed) > self._config.up_to * len(group.valid):
            return group
        helped = _Helped(self._config, group, seed, failed, self._expert, partial(again, group_size=1))
        await helped.play()
        return replace(group, trajectories=tuple(helped.members))


class _PlayOne(Protocol):
    """Plays one more member of a group."""

    def __call__(self, task: Task, *, first_member: int) -> Awaitable[Group]: ...


@dataclass(slots=True)
class _Helped:
    """A failed group that is guided; `members` are all of it so far."""

    config: GuidanceConfig
    group: Group
    seed: int
    failed: Sequence[Trajectory]
    expert: PlayEpisode
    play_one: _PlayOne
    members: list[Trajectory] = field(init=False)
    _shown: tuple[Message, ...] | None = None

    def __post_init__(self) -> None:
        self.members = list(self.group.trajectories)

    async def play(self) -> None:
        """Round after round, until something succeeds or nothing is left to give."""
        for round in range(1, self.config.rounds + 1):
            wanted = FailedGroup(self.group.task, self.failed, round, self.seed, self._show, self._ask)
            given = await GUIDES[self.config.kind](self.config, wanted)
            guided = await collect(partial(self._attempt, place, one) for place, one in enumerate(given))
            self.members += guided
            if not given or any(_succeeds(episode, self.config) for episode in guided):
                break

    async def _attempt(self, place: int, guidance: Guidance) -> Trajectory:
        task = self.group.task
        return replace(await self._one(guided_task(task, guidance), place), task=task, guidance=guidance)

    async def _one(self, task: Task, place: int) -> Trajectory:
        [episode] = (await self.play_one(task, first_member=len(self.members) + place)).trajectories
        return episode

    async def _ask(self, questions: Sequence[str]) -> list[str]:
        """Answers of the teacher or of the policy; empty where it has none."""
        if self.config.teacher is not None:
            return await ask_teacher(self.config.teacher, questions, self.seed)
        asked = [question_task(self.group.task, question) for question in questions]
        answers = await collect(partial(self._one, task, place) for place, task in enumerate(asked))
        return [answer.turns[0].action.content if answer.turns else "" for answer in answers]

    async def _show(self) -> tuple[Message, ...]:
        """The task's demonstration, or what the expert does in the group's own state. Raises `UserError`."""
        if self._shown is None:
            task = self.group.task
            if (actions := demonstrated(task)) is not None:
                self._shown = actions
                return actions
            try:
                episode = await self.expert(task, group_index=self.group.index, member=0, seed=self.seed)
            except UserError as error:
                raise UserError(f"{error}: nobody can show how a task is done, as guidance needs.") from error
            succeeds = _succeeds(episode, self.config)
            if not succeeds:
                _logger.warning("The expert fails at task %r, so that it cannot guide anyone.", task.id)
            self._shown = tuple(turn.action for turn in episode.turns) if succeeds else ()
        return self._shown


def _succeeds(episode: Trajectory, config: GuidanceConfig) -> bool:
    return episode.failure is None and episode.reward >= config.success
