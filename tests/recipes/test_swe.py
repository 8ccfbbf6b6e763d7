"""The swe recipe at small scale: the tiny model plays in real repositories, and trains on what the tests say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_rl.cli import main
from agent_rl.store.opening import open_journal


@pytest.mark.slow
def test_two_steps_in_real_repositories(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--steps", "2", "--groups-per-batch", "2", "--group-size", "2", "--eval-tasks", "2"]
    options += ["--limits.max-turns", "3", "--limits.max-response-tokens", "64", "--swe.attempts", "1"]
    assert main(["train", "swe", "--run-dir", str(run), *options]) == 0
    report = json.loads((run / "report.json").read_text())
    assert report["oracle"]["value"] == 1.0
    assert report["steps"] == 2
    with open_journal(run) as journal:
        episodes = [episode for group in journal.load_groups().values() for episode in group.trajectories]
    assert episodes
    assert [episode.failure for episode in episodes] == [None] * len(episodes)
