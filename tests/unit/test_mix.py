from dataclasses import replace

import pytest

from agent_rl.mix import Mix
from agent_rl.types import Failure, FinishReason, Group, Message, Owner, StopReason, Task, Trajectory, Turn


def group(index, turns, *, tags=("a",), failed=0):
    task = Task(f"t{index}", (Message("user", "?"),), tags=tags)
    turn = Turn(0, 0, 0, 0, Message("assistant", ""), (), 0.0, {}, (), FinishReason.STOP)
    played = tuple(replace(turn, index=i) for i in range(turns))
    episode = Trajectory(task, index, 0, 0, task.prompt, (), played, StopReason.TERMINATED)
    lost = replace(episode, member=1, failure=Failure("crash", Owner.SANDBOX, "step", "lost"))
    return Group(index, task, (episode, *[lost] * failed))


def test_training_on_what_finishes_first_shows_until_the_rest_is_consumed():
    mix = Mix()
    short, long = [group(i, 1) for i in range(3)], group(3, 9, tags=("b",), failed=1)
    for one in (*short, long):
        mix.dispatch(one.task)
        mix.finish(one)
    mix.consume(short)
    early = mix.metrics()
    assert early["consumed_turns"] == 1.0
    assert early["finished_turns"] == 3.0
    assert early["task_distance"] == pytest.approx(0.25)
    mix.consume([long])
    late = mix.metrics()
    assert late["consumed_turns"] == late["finished_turns"] == 3.0
    assert late["task_distance"] == 0.0


def test_nothing_yet():
    assert Mix().metrics() == {"task_distance": 0.0}
