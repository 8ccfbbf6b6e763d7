"""Files of every format and the commands that write and read them: never all in memory, mistakes explained."""

from __future__ import annotations

import dataclasses
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from agent_rl import cli
from agent_rl.config import build
from agent_rl.errors import UserError
from agent_rl.evaluate.eval_config import EvalConfig
from agent_rl.evaluate.harness import run
from agent_rl.exchange import chat
from agent_rl.exchange.formats import FORMATS, read_groups, write_groups
from agent_rl.store.opening import open_journal
from agent_rl.testing.environments import CountUp
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import Group

COUNT = f"{CountUp.__module__}:CountUp"


def one_episode() -> Group:
    return make_group(make_trajectory([Played()]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    fields = {"environment": COUNT, "agent": "oracle", "tasks": 10, "samples": 2, "run_dir": str(folder)}
    run(build(EvalConfig, fields))
    return folder


@pytest.mark.parametrize("format", [name for name, format in FORMATS.items() if format.read])
def test_a_run_is_exported_and_imported(folder: Path, tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]):
    file, copy = str(tmp_path / "file"), tmp_path / "copy"
    assert cli.main(["export", str(folder), "--format", format, "--output", file]) == 0
    assert "10 groups are in" in capsys.readouterr().out
    assert cli.main(["import", file, "--format", format, "--run-dir", str(copy)]) == 0
    with open_journal(folder) as before, open_journal(copy) as after:
        assert after.scores() == before.scores()
    assert cli.main(["compare", str(folder), str(copy)]) == 0
    assert "10 common tasks" in capsys.readouterr().out


def test_only_some_episodes(folder: Path, tmp_path: Path):
    file = tmp_path / "some.jsonl"
    options = ["--format", "chat", "--output", str(file), "--first", "3", "--successes"]
    assert cli.main(["export", str(folder), *options]) == 0
    assert len(file.read_text().splitlines()) == 6
    other = tmp_path / "none.jsonl"
    assert cli.main(["export", str(folder), *options[:3], str(other), "--successes", "--success-threshold", "2"]) == 0
    assert other.read_text() == ""


class Data(dict[str, Any]):
    """Data of a task that can be watched."""


@pytest.mark.parametrize("format", FORMATS)
def test_groups_are_never_all_in_memory(tmp_path: Path, format: str):
    """The writer lets a group go when it has written it."""
    watched: list[weakref.ref[Data]] = []
    most = 0

    def made():
        nonlocal most
        for index in range(200):
            data = Data(answer=index)
            watched.append(weakref.ref(data))
            task = dataclasses.replace(one_episode().task, data=data)
            episode = dataclasses.replace(one_episode().trajectories[0], task=task, group_index=index)
            del data
            yield Group(index, task, (episode,))
            most = max(most, sum(one() is not None for one in watched))

    write_groups(made(), tmp_path / "file", format)
    assert most <= 4


def test_a_file_is_read_as_far_as_it_is_asked_for(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chat.to_rows(one_episode())) * 2 + "broken")
    rows = (row for row in read_groups(path, "chat"))
    with pytest.raises(UserError, match="line 3"):
        next(rows)  # its rows end where the third line shows that they do
    path.write_text('{"messages": []}\n{"messages": []}\nbroken')
    rows = read_groups(path, "chat")
    assert next(rows).index == 0
    with pytest.raises(UserError, match="line 3"):
        next(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"messages": 3}', "line 1: a row needs messages"),
        ("{", "line 1: "),
        ("[]", "line 1: a row is a JSON object, not list"),
        ('{"messages": []}\n{"messages": [{"role": "judge"}]}', "line 2: messages\\[0\\].role is 'judge'"),
        ('{"messages": [{"role": "user", "content": "x"}], "reward": 1}', "1 rewards for 0 messages"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "chats.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_groups(path, "chat"))


def test_rows_of_a_group_that_are_apart_are_refused():
    first, second = (dataclasses.replace(one_episode(), index=index) for index in (0, 1))
    rows = [row for group in (first, second, first) for row in chat.to_rows(group)]
    for row, index in zip(rows, (0, 1, 0), strict=True):
        row["metadata"]["group"] = index
    with pytest.raises(UserError, match="group 0 are not together"):
        list(chat.from_rows(rows))


def test_mistakes_are_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "x.parquet"
    file.write_text("not parquet")
    new = ["--run-dir", str(tmp_path / "new")]
    for arguments, message in (
        (["export", str(folder), "--format", "chat", "--output", str(file)], "exists already"),
        (["export", str(folder), "--format", "chat", "--output", str(tmp_path / "no" / "x")], "cannot be written"),
        (["export", str(tmp_path), "--format", "chat", "--output", "x"], "There are no episodes in"),
        (["import", str(tmp_path / "gone"), "--format", "chat", *new], "There is no file"),
        (["import", str(file), "--format", "parquet", *new], "cannot be read as parquet"),
        (["import", str(file), "--format", "verl", *new], "verl"),
        (["export", str(folder), "--format", "sharegpt", "--output", "x"], "sharegpt"),
    ):
        assert cli.main(arguments) == 2, arguments
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match="does not hold enough to be read back; these do: atif, chat"):
        read_groups(file, "verl_rollouts")
