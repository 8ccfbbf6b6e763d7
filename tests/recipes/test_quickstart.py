"""The quickstart at small scale: the files of a run, both controls, resume, a checkpoint instead of the tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent_rl.cli import main
from agent_rl.controls import shuffle_rewards
from agent_rl.store.opening import open_journal
from agent_rl.types import FinishReason, Group, Message, StopReason, Task, Trajectory, Turn
from tests.recipes.conftest import SMALL, train


@pytest.mark.slow
def test_a_run_leaves_everything_that_is_promised(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    for name in ("success_before", "success_after", "random", "oracle"):
        assert report[name]["low"] <= report[name]["value"] <= report[name]["high"]
    assert report["oracle"]["value"] == 1.0
    assert report["steps"] == 2
    assert report["tokens"] > 0
    assert report["wall_s"] > 0
    assert report["seed"] == 0
    for name in ("config.json", "transcript_before.md", "transcript_after.md", "start/config.json"):
        assert (finished / name).is_file(), name
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 2
    assert list((finished / "tensorboard").iterdir())
    with open_journal(finished) as journal:
        assert [step for step, _ in journal.consumed()] == [1, 2]


@pytest.mark.slow
def test_the_run_folder_is_a_model_to_evaluate_and_to_train_on(finished: Path, tmp_path: Path, capsys: Any) -> None:
    evaluated = str(tmp_path / "evaluated")
    assert main(["eval", "sql_lookup", "--model", str(finished), "-n", "4", "-r", "2", "--run-dir", evaluated]) == 0
    assert "pass@2" in capsys.readouterr().out
    assert main(["replay", evaluated, "0.0", "--engine", "--model", str(finished)]) in (0, 1), "others ran beside it"
    assert "engine: " in capsys.readouterr().out
    curriculum = ("--curriculum.kind", "sec", "--curriculum.first-turns", "2", "--curriculum.growth-steps", "1")
    report = train(tmp_path / "more", "--model", str(finished / "start"), *curriculum)
    assert report["steps"] == 2
    first, _ = map(json.loads, (tmp_path / "more" / "metrics.jsonl").read_text().splitlines())
    assert {"curriculum/weight/one_query", "curriculum/share/one_query", "curriculum/max_turns"} <= first.keys()
    assert first["rollout/turns"] <= 2


@pytest.mark.slow
def test_resume_continues_and_a_used_folder_is_refused(finished: Path, capsys: Any) -> None:
    again = ["train", "quickstart", "--run-dir", str(finished), *SMALL]
    assert main(again) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main([*again, "--resume", "--steps", "3"]) == 0
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "named",
    [
        "--model X",
        "--task-file X",
        "--learner.kl-coefficient 0.1 --learner.reference.soup X",
        "--learner.distillation.teacher X",
        "--estimator archer --utterance-critic.checkpoint X",
        "--model M --cold-start.demonstrations X",
    ],
)
def test_a_mistyped_path_is_told_before_anything_begins(tmp_path: Path, capsys: Any, named: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen2"}')
    paths = {"X": str(tmp_path / "wrong"), "M": str(tmp_path / "model")}
    words = [paths.get(word, word) for word in named.split()]
    assert main(["train", "quickstart", "--run-dir", str(tmp_path / "run"), *words]) == 2
    assert f"'{tmp_path / 'wrong'}'." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("control", ["shuffled_rewards", "supervised_only"])
def test_controls_run_in_place_of_learning(tmp_path: Path, control: str) -> None:
    report = train(tmp_path / "run", "--control", control, "--control-s", "2")
    assert report["control"] == control
    assert (report["tokens"] == 0) == (control == "supervised_only")


@pytest.mark.slow
def test_trl_trains_from_the_same_start(finished: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "trl_grpo.py"
    ran = subprocess.run(
        [sys.executable, str(script), str(finished), "--steps", "1"], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    rows = [line.split("│")[1:-1] for line in ran.stdout.splitlines() if "%" in line and "│" in line]
    assert [row[0].strip() for row in rows] == ["agent-rl", "TRL"]
    assert rows[0][1] == rows[1][1], "one start for both"


def _episode(member: int, reward: float) -> Trajectory:
    turns = [
        Turn(i, 0, 0, 0, Message("assistant", "x"), (), r, {}, (), FinishReason.STOP)
        for i, r in enumerate((0.0, reward))
    ]
    return Trajectory(Task("t", ()), 0, member, 0, (), (), tuple(turns), StopReason.TERMINATED)


def test_shuffled_rewards_say_nothing_about_the_episode_but_keep_their_distribution() -> None:
    same = 0
    for index in range(200):
        rewards = [float(i < 3) for i in range(8)]
        group = Group(index, Task("t", ()), tuple(_episode(i, reward) for i, reward in enumerate(rewards)))
        shuffled = [episode.reward for episode in shuffle_rewards(group).trajectories]
        assert sorted(shuffled) == sorted(rewards)
        same += int(np.sum(np.equal(shuffled, rewards)))
    expected = (3 / 8) ** 2 + (5 / 8) ** 2  # what independence gives
    assert abs(same / 1600 - expected) < 0.06
