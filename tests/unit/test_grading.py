"""A grader that hangs, crashes or burns CPU is the grader's failure, and nobody else waits for it."""

from __future__ import annotations

import os
import threading
import time

import anyio
import pytest

from agent_rl.environment import BlockingEnvironment
from agent_rl.errors import GraderFailure, ToolError
from agent_rl.grading import grade
from agent_rl.rollout.agent import OracleAgent
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import Message, Owner, Step, StopReason, Task

pytestmark = pytest.mark.anyio


def exact(answer: str, truth: str) -> float:
    return float(answer == truth)


async def judged(answer: str) -> float:
    await anyio.sleep(0.001)
    return len(answer) / 10


def broken(answer: str) -> float:
    raise ZeroDivisionError("no questions")


def sleepy(seconds: float) -> float:
    time.sleep(seconds)
    return 1.0


def spin(_: str) -> float:
    while True:
        pass


def dies(_: str) -> float:
    os._exit(3)


@pytest.mark.parametrize("place", ["here", "thread", pytest.param("process", marks=pytest.mark.slow)])
async def test_a_score_is_what_the_function_returns(place) -> None:
    assert await grade(exact, "7", "7", place=place) == 1.0
    assert await grade(exact, "7", "8", place=place) == 0.0
    with pytest.raises(GraderFailure, match="ZeroDivisionError: no questions") as caught:
        await grade(broken, "7", place=place)
    assert caught.value.kind == "crash"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_an_async_judge_has_a_deadline() -> None:
    assert await grade(judged, "abc") == 0.3
    with pytest.raises(GraderFailure) as caught:
        await grade(anyio.sleep, 10, timeout_s=0.01)
    assert (caught.value.kind, caught.value.owner) == ("timeout", Owner.GRADER)


async def test_a_grader_that_waits_does_not_stop_the_loop() -> None:
    began = anyio.current_time()
    with pytest.raises(GraderFailure, match="timed out"):
        await grade(sleepy, 3.0, timeout_s=0.02, place="thread")
    assert anyio.current_time() - began < 2.0, "the thread is left behind"


@pytest.mark.slow
async def test_a_grader_that_burns_cpu_or_dies_is_stopped() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        with pytest.raises(GraderFailure) as caught:
            await grade(spin, "", timeout_s=2.0, place="process")
        assert caught.value.kind == "timeout"
        assert ticks > 20, "the event loop was blocked"
        with pytest.raises(GraderFailure) as caught:
            await grade(dies, "", timeout_s=20.0, place="process")
        assert caught.value.kind == "crash"
        assert await grade(exact, "1", "1", timeout_s=20.0, place="process") == 1.0, "the next call has a new worker"
        tasks.cancel_scope.cancel()


async def test_what_is_meant_for_the_model_passes() -> None:
    def refuse() -> float:
        raise ToolError("Answer with a number.")

    with pytest.raises(ToolError):
        await grade(refuse)


class Quiz(BlockingEnvironment):
    """Blocks everywhere, and goes on when all have come as far."""

    closed = 0
    together = threading.Barrier(1)

    @classmethod
    def tasks(cls, split, count, seed=0):
        return [Task(f"quiz-{i}", (Message("user", "1 + 1?"),)) for i in range(count)]

    def blocking_reset(self, task, seed):
        self.together.wait(20)
        return task.prompt

    def blocking_step(self, action):
        self.together.wait(20)
        return Step((), reward=float(action.content == "2"), terminated=True)

    def blocking_close(self):
        Quiz.closed += 1

    def oracle_action(self):
        return Message("assistant", "2")


async def play(environment) -> object:
    return await run_episode(
        lambda task: environment,
        lambda environment, _: OracleAgent(environment),
        Quiz.tasks("train", 1)[0],
        group_index=0,
        member=0,
        seed=0,
        limits=RolloutLimits(),
    )


async def test_blocking_environments_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quiz, "together", threading.Barrier(16))
    rewards = []

    async def one() -> None:
        rewards.append((await play(Quiz())).reward)

    closed = Quiz.closed
    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(one)
    assert rewards == [1.0] * 16
    assert Quiz.closed == closed + 16


async def test_a_grader_failure_is_no_reward_of_zero() -> None:
    class Graded(Quiz):
        async def step(self, action):
            return Step((), reward=await grade(broken, action.content), terminated=True)

    trajectory = await play(Graded())
    assert trajectory.stop_reason is StopReason.FAILURE
    assert trajectory.failure.owner is Owner.GRADER
    assert trajectory.failure.retryable
