"""Training through an agent program that nobody here wrote: its episodes are ordinary trajectories, and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_rl.cli import main
from agent_rl.store.opening import open_journal


@pytest.mark.slow
def test_the_agents_sdk_plays_and_the_policy_trains(finished: Path, tmp_path: Path) -> None:
    options = ["--steps", "2", "--groups-per-batch", "3", "--group-size", "4", "--eval-tasks", "4"]
    run = tmp_path / "run"
    assert main(["train", "black_box_agent", "--model", str(finished / "start"), "--run-dir", str(run), *options]) == 0
    assert json.loads((run / "report.json").read_text())["steps"] == 2
    with open_journal(run) as journal:
        groups = journal.load_groups().values()
    episodes = [episode for group in groups for episode in group.trajectories]
    assert [episode.failure for episode in episodes] == [None] * len(episodes)
    for episode in episodes:
        assert episode.sampled_tokens == sum(turn.end - turn.start for turn in episode.turns) > 0
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first.get("learner/mismatch_abs", 0.0) < 1e-4


def test_it_needs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "black_box_agent"]) == 2
    assert "model" in capsys.readouterr().err
