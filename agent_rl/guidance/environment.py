"""An environment whose episodes begin with the guidance that their task carries. Knows nothing of who gives it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from agent_rl.environment import Environment
from agent_rl.errors import EnvironmentFailure
from agent_rl.guidance.task import guidance_of, is_question, with_text
from agent_rl.rollout.episode import EnvironmentFactory
from agent_rl.tool import Tool
from agent_rl.types import Message, Step, Task
from agent_rl.wrapper import EnvironmentWrapper

_NOTHING = Step(())


class GuidedEnvironment(EnvironmentWrapper):
    """Adds the task's guidance to the opening messages; a task without any is played as it is.

    An expert's actions are played at reset and shown as what was said before. What they earned counts with the
    policy's first step, so that an episode is worth as much as one of a sibling that began by itself.
    """

    def __init__(self, inner: Environment) -> None:
        super().__init__(inner)
        self._asks = False
        self._before = _NOTHING

    @property
    def tools(self) -> Sequence[Tool]:
        """Those inside; none for a question to the policy."""
        return () if self._asks else super().tools

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        """The opening messages with the guidance. Raises `EnvironmentFailure` when it leaves nothing to do."""
        self._asks, self._before = is_question(task), _NOTHING
        if self._asks:
            return task.prompt
        plain, guidance = guidance_of(task)
        prompt = tuple(await super().reset(plain, seed))
        if guidance is None:
            return prompt
        for action in guidance.actions:
            step = await super().step(action)
            if step.terminated or step.truncated:
                raise EnvironmentFailure(
                    "the expert's actions end the episode, so that nothing is left to do",
                    kind="guidance",
                    stage="setup",
                    retryable=False,
                )
            self._before = _after(self._before, step)
            prompt = (*prompt, action, *step.messages)
        return with_text(prompt, guidance.text)

    async def step(self, action: Message) -> Step:
        """The inner step; an answer to a question ends the episode."""
        if self._asks:
            return Step((), terminated=True)
        step = await super().step(action)
        before, self._before = self._before, _NOTHING
        return step if before is _NOTHING else _after(before, step)

    def state_key(self) -> Hashable | None:
        """The inner one; a question has no state."""
        return None if self._asks else super().state_key()

    async def snapshot(self) -> object:
        """The inner state, and what was earned before the policy's first step."""
        return await super().snapshot(), self._before

    async def restore(self, snapshot: object) -> None:
        """Continue from a value of `snapshot`."""
        inner, self._before = cast("tuple[object, Step]", snapshot)
        await super().restore(inner)


@dataclass(frozen=True, slots=True)
class GuidedEnvironments:
    """An `EnvironmentFactory` of environments that can be guided; it can be pickled if the one inside can."""

    inner: EnvironmentFactory

    def __call__(self, task: Task) -> Environment:
        """The environment for one episode of the task."""
        return GuidedEnvironment(self.inner(task))


def _after(before: Step, step: Step) -> Step:
    """The later step with the rewards, reward terms and metrics of both."""
    terms = _sums(before.info.reward_terms, step.info.reward_terms)
    info = replace(step.info, reward_terms=terms, metrics=_sums(before.info.metrics, step.info.metrics))
    return step._replace(reward=before.reward + step.reward, info=info)


def _sums(*each: Mapping[str, float]) -> dict[str, float]:
    return {name: sum(one.get(name, 0.0) for one in each) for name in dict.fromkeys(n for one in each for n in one)}
