import pytest

from agent_rl import Message, Task
from agent_rl.curriculum.schedules import linear, multiplicative
from agent_rl_envs.browser.curriculum import more_actions, sub_instructions

TASK = Task("t", (Message("user", "x"),), {"page": "p"})


def test_schedules():
    rising = linear(2, 10, 4)
    assert [rising(i) for i in (0, 1, 2, 4, 100)] == [2, 4, 6, 10, 10]
    stages = multiplicative(10, 30, 6)
    assert [stages(i) for i in range(8)] == [10, 10, 10, 20, 20, 20, 30, 30]
    assert [multiplicative(4, 6, 2)(i) for i in range(3)] == [4, 4, 6]
    assert multiplicative(5, 5, 1)(0) == 5


def test_samplers_change_what_the_environment_reads_and_nothing_else():
    longer = more_actions(lambda index: TASK, linear(1.4, 9.6, 10))
    assert [longer(i).data["max_actions"] for i in (0, 10)] == [1, 10]
    easier = sub_instructions(lambda index: TASK, linear(1.5, -0.5, 2))
    assert [easier(i).data["solved_share"] for i in (0, 1, 2)] == [1.0, 0.5, 0.0]
    assert easier(0).data["page"] == "p"
    assert easier(0).id == "t"
    assert "solved_share" not in TASK.data


@pytest.mark.parametrize("index", [0, 3, 50])
def test_they_are_pure(index):
    sampler = more_actions(lambda index: TASK, multiplicative(2, 16, 20))
    assert sampler(index) == sampler(index)
