"""The recipe of distillation: a teacher is trained first, once, and the policy comes nearer to it than it began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_rl.cli import main
from tests.recipes.conftest import SMALL


@pytest.mark.slow
def test_a_teacher_is_made_once_and_taught_from(tmp_path: Path) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    own = ["--teacher-dir", str(teacher), "--teacher-steps", "2", "--distill-only"]
    assert main(["train", "distill", "--run-dir", str(run), *SMALL, *own]) == 0
    made = (teacher / "report.json").stat().st_mtime_ns
    assert main(["train", "distill", "--run-dir", str(tmp_path / "again"), *SMALL, *own]) == 0
    assert (teacher / "report.json").stat().st_mtime_ns == made
    config = json.loads((run / "config.json").read_text())
    assert config["learner"]["distillation"]["teacher"].startswith(str(teacher / "checkpoints"))
    assert config["learner"]["advantage_coefficient"] == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(any("teacher" in name for name in row) for row in rows)


def test_a_checkpoint_needs_a_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "distill", "--model", "x/y"]) == 2
    assert "learner.distillation.teacher" in capsys.readouterr().err
