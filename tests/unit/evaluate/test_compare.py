import json
from dataclasses import replace

import numpy as np
import pytest

from agent_rl.cli import main
from agent_rl.errors import UserError
from agent_rl.evaluate.compare import CompareConfig, compare, read_values, run
from agent_rl.evaluate.paired import paired_difference, tasks_for
from agent_rl.evaluate.statistics import mean, proportion
from agent_rl.store.opening import create_journal
from agent_rl.testing.episodes import Played, make_trajectory
from agent_rl.types import Group, Task


def write_run(folder, rewards, ids=None):
    """A run with one task for each list of rewards; None is an episode that infrastructure failed."""
    folder.mkdir()
    with create_journal(folder) as journal:
        for index, of_task in enumerate(rewards):
            task = Task(id=ids[index] if ids else f"task-{index}", environment="e", prompt=())
            episodes = tuple(episode(task, index, member, reward) for member, reward in enumerate(of_task))
            journal.append_group(Group(index, task, episodes))
    return folder


@pytest.fixture
def runs(tmp_path):
    a = write_run(tmp_path / "a", [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.5, None]])
    b = write_run(tmp_path / "b", [[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.5, 1.0], [1.0, 1.0]])
    return a, b


def test_values_are_of_the_episodes_that_count(runs):
    success, reward = (CompareConfig(runs=runs, score=score) for score in ("success", "reward"))
    assert list(read_values(runs[0], success).values()) == [0.5, 0.0, 1.0, 0.0]
    assert list(read_values(runs[0], reward).values()) == [0.5, 0.0, 1.0, 0.5]
    assert read_values(runs[0], CompareConfig(runs=runs, success_threshold=0.5))["task-3", 0] == 1.0


def test_tasks_are_paired(runs):
    found = run(CompareConfig(runs=runs))
    a, b = np.array([0.5, 0.0, 1.0, 0.0]), np.array([1.0, 0.5, 0.5, 0.5])
    assert (found.a, found.b) == (proportion(a), proportion(b))
    assert found.paired == paired_difference(a, b)
    assert (found.only_a, found.only_b) == (0, 1)
    assert {flip.task_id for flip in found.better} == {"task-0", "task-1", "task-3"}
    assert [tuple(flip) for flip in found.worse] == [("task-2", 1.0, 0.5)]
    assert found.needed == {width: tasks_for(b - a, width) for width in (0.05, 0.02, 0.01)}
    assert run(CompareConfig(runs=runs, score="reward")).a == mean(np.array([0.5, 0.0, 1.0, 0.5]))


def test_a_task_that_occurs_twice_is_matched_in_order(tmp_path):
    a = write_run(tmp_path / "a", [[None], [1.0], [0.0]], ids=["x", "x", "y"])
    b = write_run(tmp_path / "b", [[1.0], [0.0], [0.0]], ids=["x", "x", "y"])
    found = run(CompareConfig(runs=(a, b)))
    assert [tuple(flip) for flip in found.worse] == [("x", 1.0, 0.0)]
    assert found.paired.tasks == 2


def test_the_command_prints_and_writes_it(runs, tmp_path, capsys):
    output = tmp_path / "compared.json"
    assert main(["compare", *map(str, runs), "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    for text in ("success on 4 common tasks", "B - A", "0.250", "3 tasks on which B is better", "task-2", "1 of B"):
        assert text in shown
    assert json.loads(output.read_text())["paired"]["difference"]["value"] == 0.25
    assert main(["compare", *map(str, runs), "--show", "0"]) == 0
    assert "task-2" not in capsys.readouterr().out


def test_names_of_tasks_are_shown_as_they_are(tmp_path, capsys):
    name = "[red]\x1b[31mx"
    a, b = (write_run(tmp_path / run, [[float(run == "b")]], ids=[name]) for run in "ab")
    assert main(["compare", str(a), str(b)]) == 0
    shown = capsys.readouterr().out
    assert "[red]" in shown
    assert "\x1b[31m" not in shown


def test_two_runs_that_are_alike_differ_by_nothing(runs):
    found = run(CompareConfig(runs=(runs[0], runs[0])))
    assert found.paired.difference.value == 0.0
    assert found.paired.difference.low < 0 < found.paired.difference.high
    assert found.needed == {}


def test_mistakes_are_one_sentence(runs, tmp_path, capsys):
    for arguments, message in [
        ([runs[0]], "give two folders to compare, not 1"),
        ([runs[0], tmp_path / "nowhere"], "There are no episodes in"),
        ([*runs, "--output", tmp_path / "no" / "where.json"], "its folder does not exist"),
    ]:
        assert main(["compare", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    with pytest.raises(UserError, match="no task in common"):
        compare({("x", 0): 1.0}, {("y", 0): 1.0}, share=True)


def episode(task, index, member, reward):
    played = make_trajectory([Played(reward or 0.0)], member=member, failed=reward is None)
    return replace(played, task=task, group_index=index)
