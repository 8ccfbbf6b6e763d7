"""The recipe of a horizon that grows: the first step's episodes are short, the last one's have all their turns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agent_rl.cli import main


@pytest.mark.slow
def test_the_horizon_grows(tmp_path: Path) -> None:
    if not any(map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))):
        pytest.skip("Chromium is not installed: apt install chromium-headless-shell")
    run = tmp_path / "run"
    options = ["--steps", "2", "--groups-per-batch", "1", "--group-size", "2", "--eval-tasks", "2"]
    options += ["--templates", "phone_of_contact", "--max-actions", "2"]
    options += ["--curriculum.first-turns", "1", "--curriculum.growth-steps", "2", "--warm-start.demonstrations", "4"]
    options += ["--warm-start.max-steps", "4", "--warm-start.check-every", "4", "--warm-start.check-episodes", "2"]
    options += ["--limits.max-turns", "3", "--limits.max-response-tokens", "24", "--limits.max-context-tokens", "6000"]
    assert main(["train", "browser", "--run-dir", str(run), *options]) == 0
    assert json.loads((run / "report.json").read_text())["oracle"]["value"] == 1.0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["rollout/turns"] == 1
    assert rows[0]["curriculum/max_turns"] < rows[1]["curriculum/max_turns"] == 3
