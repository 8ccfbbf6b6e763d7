"""Many environments behind gymnasium's vector interface: its own semantics, all at once, nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import agent_rl.gym
from agent_rl.environment import Environment
from agent_rl.errors import EnvironmentFailure, UserError
from agent_rl.gym import GymnasiumEnv, GymnasiumVectorEnv
from agent_rl.testing.environments import GuessNumber
from agent_rl.types import Message, Step, StepInfo, Task

GUESS = "agent_rl.testing.environments:GuessNumber"
HERE = __name__
PLAY: dict[str, Any] = {"options": {"high": 8}, "tasks": 20}


def same(ours: Any, theirs: Any) -> bool:
    """Equal, through dictionaries and arrays of objects."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, np.ndarray):
        return ours.dtype == theirs.dtype and same(ours.tolist(), theirs.tolist())
    if isinstance(ours, tuple | list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs


class Impatient(GuessNumber):
    """Ends in both ways: found, or cut after four guesses."""

    guesses = 0

    async def step(self, action: Message) -> Step:
        self.guesses += 1
        step = await super().step(action)
        return step._replace(truncated=self.guesses == 4 and not step.terminated)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_it_does_what_gymnasiums_own_does(mode: AutoresetMode):
    """Step by step, in every mode, with several episodes each: observations, rewards, ends, infos and their masks."""
    ours = GymnasiumVectorEnv(3, f"{HERE}:Impatient", autoreset_mode=mode, **PLAY)
    theirs = SyncVectorEnv([lambda: GymnasiumEnv(f"{HERE}:Impatient", **PLAY)] * 3, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    rng, ended, episodes = np.random.default_rng(0), np.zeros(3, np.bool_), 0
    assert same(ours.reset(seed=5), theirs.reset(seed=5))
    for _ in range(40):
        if mode is AutoresetMode.DISABLED and ended.any():
            outcomes = [envs.reset(seed=[7, None, 9], options={"reset_mask": ended.copy()}) for envs in (ours, theirs)]
            assert same(*outcomes)
        actions = tuple(str(guess) for guess in rng.integers(8, size=3))
        outcome = ours.step(actions)
        assert same(outcome, theirs.step(actions))
        assert ours.observation_space.contains(outcome[0])
        ended = outcome[2] | outcome[3]
        episodes += ended.sum()
    assert episodes > 10
    ours.close()
    theirs.close()


def test_it_is_what_make_vec_makes():
    envs = gymnasium.make_vec("agent_rl/SqlLookup-v0", num_envs=3)
    assert isinstance(envs, GymnasiumVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    texts, infos = envs.reset(seed=3)
    assert texts in envs.observation_space
    assert infos["_task"].all()
    _, rewards, terminated, _, _ = envs.step(("1", "2", "3"))
    assert rewards.shape == (3,)
    assert terminated.all()
    envs.close()
    named = gymnasium.make_vec(
        "agent_rl.gym:agent_rl/SqlLookup-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        autoreset_mode="SameStep",
        split="test",
    )
    assert named.reset(options={"task": 4})[1]["task"].tolist() == ["sql_lookup/test/0/4"] * 2
    named.close()


def test_gymnasiums_wrappers_work_on_it():
    envs = GymnasiumVectorEnv(2, GUESS, render_mode="ansi", **PLAY)
    counted = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    listed = gymnasium.wrappers.vector.DictInfoToList(counted)
    _, infos = listed.reset(seed=0)
    assert [info["tags"] for info in infos] == [[], []]
    for guess in range(8):
        _, rewards, _, _, infos = listed.step((str(guess),) * 2)
        for reward, info in zip(rewards, infos, strict=True):
            assert ("episode" in info) == bool(reward)
    assert all(text.startswith("[user]\nGuess my number") for text in envs.render())
    listed.close()


class Meeting(Environment):
    """A step ends when all environments are in theirs: one after another they would wait for ever."""

    members = 16
    inside = 0

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> Sequence[Task]:
        return [Task(f"{split}-{index}", (Message("user", "?"),)) for index in range(count)]

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        await self.meet()
        return task.prompt

    async def step(self, action: Message) -> Step:
        await self.meet()
        return Step((Message("user", "met"),), info=StepInfo(metrics={"met": 1.0}))

    async def meet(self) -> None:
        kind = type(self)
        kind.inside += 1
        while kind.inside % self.members:  # noqa: ASYNC110  # there is no loop yet to make an event in
            await anyio.sleep(0.001)


def test_all_step_at_once():
    envs = GymnasiumVectorEnv(Meeting.members, f"{HERE}:Meeting", timeout_s=10)
    envs.reset()
    texts, _, _, _, infos = envs.step(("go",) * Meeting.members)
    assert texts == ("met",) * Meeting.members
    assert infos["metrics"]["met"].tolist() == [1.0] * Meeting.members
    envs.close()


class Fragile(GuessNumber):
    """Crashes, hangs, or fails to close, as the action says; `open` counts."""

    open = 0

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        Fragile.open += 1
        self.said = ""
        return await super().reset(task, seed)

    async def step(self, action: Message) -> Step:
        self.said = action.content
        if action.content == "hang":
            await anyio.sleep_forever()
        if action.content == "crash":
            raise RuntimeError("a bug")
        return await super().step(action)

    async def close(self) -> None:
        Fragile.open -= 1
        if self.said == "stay":
            raise RuntimeError("it does not close")


@pytest.mark.parametrize(("action", "message"), [("crash", "a bug"), ("hang", "timed out")])
def test_one_that_fails_is_named_and_all_are_reset_and_closed(action: str, message: str):
    envs = GymnasiumVectorEnv(3, f"{HERE}:Fragile", timeout_s=0.2)
    envs.reset(seed=0)
    with pytest.raises(EnvironmentFailure, match=message) as caught:
        envs.step(("-1", action, "-1"))
    assert caught.value.__notes__ == ["in environment 1 of 3"]
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.step(("1", "1", "1"))
    envs.reset(seed=0)
    assert Fragile.open == 3
    envs.step(("1", "1", "1"))
    envs.close()
    envs.close()
    assert Fragile.open == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "agent_rl.gym"]


def test_one_that_does_not_close_keeps_no_other_from_closing():
    envs = GymnasiumVectorEnv(3, f"{HERE}:Fragile")
    envs.reset()
    envs.step(("stay", "1", "1"))
    envs.close()
    assert Fragile.open == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "agent_rl.gym"]


def test_mistakes_are_explained():
    envs = GymnasiumVectorEnv(2, GUESS, autoreset_mode="Disabled", **PLAY)
    with pytest.raises(gymnasium.error.ResetNeeded, match="before step"):
        envs.step(("1", "2"))
    with pytest.raises(UserError, match="3 seeds for 2 environments"):
        envs.reset(seed=[1, 2, 3])
    with pytest.raises(UserError, match="reset_mask must be 2 booleans"):
        envs.reset(options={"reset_mask": np.array([1, 0])})
    envs.reset(options={"task": 0})
    with pytest.raises(UserError, match="step\\(\\) takes 2 actions"):
        envs.step("12")
    hidden = GuessNumber.tasks("train", 20, config=GuessNumber.config_type(high=8))[0].data["hidden"]
    assert envs.step((str(hidden), "-"))[2].tolist() == [True, False]
    with pytest.raises(gymnasium.error.ResetNeeded, match="episodes of \\[0\\] have ended"):
        envs.step(("1", "2"))
    envs.close()
    with pytest.raises(UserError, match="num_envs"):
        agent_rl.gym.GymnasiumVectorEnv(0, GUESS)
