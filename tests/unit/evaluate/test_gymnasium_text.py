"""A text environment that somebody registered with gymnasium is evaluated from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_rl import cli
from agent_rl.store.opening import open_journal

MODULE = '''
import gymnasium
from gymnasium.spaces import Text


class Vowels(gymnasium.Env):
    """Two turns; an action that begins with a vowel is worth 1."""

    observation_space = Text(16, charset="abcdefghijklmnopqrstuvwxyz 0123456789")
    action_space = Text(8, charset="aeioubcdfg")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.turns = 0
        return f"word {int(self.np_random.integers(100))}", {}

    def step(self, action):
        self.turns += 1
        return "again", float(action[:1] in set("aeiou")), self.turns == 2, False, {}


gymnasium.register("Vowels-v0", Vowels)
'''


def test_any_text_environment_of_gymnasium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "vowels_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    options = ["--agent", "random", "-n", "12", "-r", "3", "--success-threshold", "2", "--run-dir", "run"]
    options += ["--environment-options", "env", "vowels_of_mine:Vowels-v0"]
    assert cli.main(["eval", "gymnasium", *options]) == 0
    assert "pass@2" in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["overall"]["episodes"] == 36
    assert 0 < report["overall"]["success"]["value"] < 1
    with open_journal(tmp_path / "run") as journal:
        first = journal.read_groups([0])[0].trajectories[0]
    assert first.prompt[-1].content.startswith("word ")
    assert len(first.turns) == 2


def test_one_that_is_not_registered_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["eval", "gymnasium", "--agent", "random", "--environment-options", "env", "Nothing-v0"]) == 2
    assert "Gymnasium has no environment 'Nothing-v0'" in capsys.readouterr().err
