"""Tasks are kept by measured pass rates, and files of tasks survive a round trip."""

import json

import pytest

from agent_rl.cli import main
from agent_rl.environment import Environment
from agent_rl.errors import UserError
from agent_rl.store.tasks import read_tasks, write_tasks
from agent_rl.types import Message, Step, Task

HERE = "tests.unit.evaluate.test_selection:Coins"


class Coins(Environment):
    """Heads wins; the task says how often that is (of 8 attempts, exactly)."""

    played: dict[str, int] = {}  # noqa: RUF012  # shared on purpose

    @classmethod
    def tasks(cls, split, count, seed=0):
        cls.played.clear()
        prompt = (Message("user", "Toss."),)
        return [Task(f"{split}-{i}", prompt, {"wins": i % 9}, "coins", (f"w{i % 9}",)) for i in range(count)]

    async def reset(self, task, seed):
        if task.data["wins"] == 5:
            raise RuntimeError("a broken task")
        self.attempt = self.played[task.id] = self.played.get(task.id, -1) + 1
        self.wins = task.data["wins"]
        return task.prompt

    async def step(self, action):
        return Step((), float(self.attempt < self.wins), terminated=True)

    def random_action(self, rng):
        return Message("assistant", "heads")


def select(tmp_path, *options):
    output = tmp_path / "kept.jsonl"
    arguments = ["env", "select", HERE, "--agent", "random", "-n", "18", "-r", "8", "--max-attempts", "1"]
    return main([*arguments, "--output", str(output), *options]), output


def test_what_is_solved_sometimes_is_kept(tmp_path, capsys):
    code, output = select(tmp_path)
    assert code == 0
    kept = [task.data["wins"] for task in read_tasks(output)]
    assert kept == [1, 2, 3, 4, 6, 7] * 2
    shown = capsys.readouterr().out
    for line in ("kept │ 12", "too hard │ 2", "too easy │ 2", "not measured │ 2"):
        verdict, number = line.split(" │ ")
        (row,) = [row for row in shown.splitlines() if verdict in row and "│" in row]
        assert number in row.split("│")[2]


def test_the_range_is_the_user_s(tmp_path):
    _, output = select(tmp_path, "--min-pass-rate", "0.25", "--max-pass-rate", "0.5")
    assert {task.data["wins"] for task in read_tasks(output)} == {2, 3, 4}


def test_kept_tasks_can_be_played(tmp_path):
    folder = tmp_path / "run"
    _, output = select(tmp_path)
    assert main(["eval", HERE, "--agent", "random", "--task-file", str(output), "--run-dir", str(folder)]) == 0
    report = json.loads((folder / "report.json").read_text())
    assert (report["tasks"], report["episodes"]) == (12, 12)


def test_an_interrupted_selection_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    _, whole = select(tmp_path)
    (tmp_path / "again").mkdir()
    with monkeypatch.context() as stopped:
        stopped.setattr("agent_rl.evaluate.selection.write_tasks", _fail)
        with pytest.raises(RuntimeError):
            select(tmp_path / "again", "--run-dir", str(folder))
    code, output = select(tmp_path / "again", "--run-dir", str(folder), "--resume")
    assert code == 0
    assert read_tasks(output) == read_tasks(whole)


def test_a_selection_goes_on_with_another_file_and_range_and_plays_nothing_again(tmp_path):
    folder, other = tmp_path / "run", tmp_path / "narrow.jsonl"
    _, first = select(tmp_path, "--run-dir", str(folder))
    before = first.read_bytes()
    options = ["--run-dir", str(folder), "--resume", "--output", str(other), "--max-pass-rate", "0.5"]
    assert select(tmp_path, *options)[0] == 0
    assert [task.data["wins"] for task in read_tasks(other)] == [1, 2, 3, 4] * 2
    assert first.read_bytes() == before
    assert Coins.played == {}


def _fail(*_):
    raise RuntimeError


def test_mistakes_are_one_sentence(tmp_path, capsys):
    for options, error in [
        (["--min-pass-rate", "0.9", "--max-pass-rate", "0.1"], "min_pass_rate 0.9 is above max_pass_rate 0.1"),
        (["--output", str(tmp_path / "no" / "where.jsonl")], "its folder does not exist"),
    ]:
        assert select(tmp_path, *options)[0] == 2
        assert error in capsys.readouterr().err.replace("\n", " ")
    assert select(tmp_path)[0] == 0
    assert select(tmp_path)[0] == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["env", "select", HERE, "--agent", "random"]) == 2
    assert "--output" in capsys.readouterr().err


def test_files_of_tasks(tmp_path):
    path = tmp_path / "tasks.jsonl"
    tasks = Coins.tasks("train", 3)
    write_tasks(path, tasks)
    assert read_tasks(path) == tasks
    for text, error in [
        ("", "There are no tasks"),
        ('{"id": 1}\n', "line 1: not a task"),
        ("oops", "line 1: not a task"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=error):
            read_tasks(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_tasks(tmp_path / "nothing")
