"""Maths: answers are compared by value, made-up problems are right, and nothing passes from one episode to another."""

from __future__ import annotations

import json

import numpy as np
import pytest

from agent_rl.errors import UserError
from agent_rl.rows import RowsConfig
from agent_rl.sandbox import SandboxConfig
from agent_rl.types import Message, Task, ToolCall
from agent_rl_envs.maths import MathsConfig, MathsEnvironment
from agent_rl_envs.maths.answers import boxed, same_answer, stated_answer
from agent_rl_envs.maths.problems import make_problem

PROCESS = SandboxConfig(kind="process")


@pytest.mark.parametrize(
    ("given", "gold", "same"),
    [
        ("1,200", "1200.0", True),
        (r"\dfrac{1}{2}", "0.5", True),
        ("50/100", "1/2", True),
        (r"$\text{Yes}.$", "yes", True),
        (r"x^2 + 1", r"x^2+1", True),
        ("12", "1.2", False),
        ("1,20", "120", False),
        ("1/0", "0", False),
        ("", "0", False),
    ],
)
def test_answers_are_compared_by_value(given, gold, same):
    assert same_answer(given, gold) is same
    assert same_answer(gold, given) is same


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{1} or \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("no box", None),
        (r"\boxed{1", None),
        (r"\boxed{}", ""),
    ],
)
def test_the_last_box_is_the_answer(text, found):
    assert boxed(text) == found


def test_rows_state_answers_in_their_own_ways():
    assert [stated_answer(text) for text in ("so\n#### 1,200", r"it is \boxed{7}", "7")] == ["1,200", "7", "7"]


@pytest.mark.parametrize("test", [True, False])
def test_the_right_program_gives_the_answer_and_no_other_question_has_its_numbers(test):
    for seed in range(50):
        problem = make_problem(np.random.default_rng(seed), test=test, changes=3)
        space: dict[str, object] = {}
        opening, _, last = problem.programs[problem.right].rpartition("\n")
        exec(opening, space)
        assert str(eval(last, space)) == problem.answer
        numbers = [int(word) for word in problem.question.rstrip("?").split(": ")[1].split(", ")]
        assert (sum(numbers) % 4 == 0) is test
        assert int(problem.answer) not in numbers, "nothing has to be computed"


async def opened(task: Task, config: MathsConfig) -> MathsEnvironment:
    environment = MathsEnvironment(config)
    await environment.reset(task, 0)
    return environment


def run(code: str) -> Message:
    return Message("assistant", "let me see", (ToolCall("1", "python", {"code": code}),))


@pytest.mark.anyio
async def test_code_runs_between_thoughts_and_only_the_boxed_answer_is_rewarded():
    config = MathsConfig(sandbox=PROCESS, weights={"correct": 1.0, "format": 0.1, "code": 0.01})
    [task] = MathsEnvironment.tasks("train", 1, 0, config)
    environment = await opened(task, config)
    await environment.step(run("x = 20 + 1"))
    step = await environment.step(run("2 * x"))
    assert [message.content for message in step.messages] == ["42"]
    step = await environment.step(Message("assistant", task.data["answer"]))
    assert (step.terminated, "boxed" in step.messages[0].content) == (False, True)
    step = await environment.step(Message("assistant", f"\\boxed{{{task.data['answer']}}}"))
    assert (step.terminated, step.reward) == (True, 1.01), "format is lost, code was run"
    await environment.close()

    other = await opened(task, config)
    assert "NameError" in (await other.step(run("x"))).messages[0].content
    await other.close()


def test_rows_of_data_sets(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "half?", "answer": r"\boxed{\frac12}"}, {"x": 1}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    config = MathsConfig(rows=RowsConfig(source=str(path), test_share=0.0))
    found = {task.prompt[-1].content: task.data["answer"] for task in MathsEnvironment.tasks("train", 9, 0, config)}
    assert found == {"1 + 1?": "2", "half?": r"\frac12"}
    path.write_text(json.dumps(rows[2]) + "\n")
    with pytest.raises(UserError, match=r"line 1.*answer"):
        MathsEnvironment.tasks("train", 9, 0, config)
