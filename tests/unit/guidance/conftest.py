"""A game whose moves are told, failed attempts at it, and a scripted play of guided tasks."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent_rl.environment import Environment
from agent_rl.guidance.environment import GuidedEnvironments
from agent_rl.rollout.agent import Action
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import Message, Step, StepInfo, Task

LIMITS = RolloutLimits(max_turns=4)


class Steps(Environment):
    """Say the words of the task in order. Each right word earns 0.1, the last one 0.7 more: 1 in all."""

    @classmethod
    def tasks(cls, split, count, seed=0):
        raise NotImplementedError

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        assert not [name for name in task.data if name.startswith("agent_rl.")], "the environment sees its own task"
        self._words, self._right = list(task.data["words"]), 0
        return task.prompt

    async def step(self, action: Message) -> Step:
        right = action.content == self._words[self._right]
        self._right += right
        done = self._right == len(self._words)
        terms = StepInfo(reward_terms={"right": float(right)}, metrics={"said": 1.0})
        reward = 0.1 * right + 0.7 * done
        return Step((Message("user", f"{self._right} right"),), reward, terminated=done, info=terms)

    def state_key(self):
        return self._right

    async def snapshot(self):
        return self._right

    async def restore(self, snapshot):
        self._right = snapshot

    def oracle_action(self) -> Message:
        return Message("assistant", self._words[self._right])


class Scripted:
    """An agent that says what `say(prompt, turn)` gives, or nothing."""

    context_tokens = 0

    def __init__(self, say):
        self._say = say

    def start(self, prompt, tools):
        self._prompt = tuple(prompt)
        self.tools = tools

    async def act(self, turn, max_tokens):
        return Action(Message("assistant", self._say(self._prompt, turn)))

    def observe(self, messages):
        pass

    def segments(self):
        return ()

    async def close(self):
        pass


def playing(say, seen=None, environment=lambda task: Steps()):
    """A `PlayEpisode` of guided tasks; `seen` collects (task, member, seed)."""

    async def play(task, *, group_index, member, seed):
        if seen is not None:
            seen.append((task, member, seed))
        return await run_episode(
            GuidedEnvironments(environment),
            lambda environment, key: Scripted(say),
            task,
            group_index=group_index,
            member=member,
            seed=seed,
            limits=LIMITS,
        )

    return play


@pytest.fixture
def three() -> Task:
    words = ("one", "two", "three")
    hint = [f"word {i} is {word}" for i, word in enumerate(words)]
    return Task("three", (Message("system", "a game"), Message("user", "go")), {"words": words, "hint": hint})


@pytest.fixture
def with_data(three):
    return lambda **data: replace(three, data={**three.data, **data})
