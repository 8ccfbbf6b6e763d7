"""One small run of the quickstart, for all tests that start from a trained policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_rl.cli import main

SMALL = [
    *("--steps", "2", "--groups-per-batch", "4", "--group-size", "4", "--eval-tasks", "12"),
    *("--warm-start.demonstrations", "60", "--warm-start.max-steps", "20", "--warm-start.check-every", "10"),
    *("--warm-start.max-implausible", "1", "--warm-start.last-steps", "2"),
    *("--warm-start.check-episodes", "8", "--checkpoint-every", "1"),
]


def train(folder: Path, *options: str) -> dict[str, Any]:
    assert main(["train", "quickstart", "--run-dir", str(folder), *SMALL, *options]) == 0
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder)
    return folder
