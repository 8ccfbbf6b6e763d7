"""The code recipe at small scale: programs are judged in the default sandbox, and the policy trains on the verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_rl.cli import main
from agent_rl.store.opening import open_journal
from tests.recipes.conftest import SMALL


@pytest.mark.slow
def test_programs_are_judged_and_trained_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "write_code", "--run-dir", str(run), *SMALL]) == 0
    report = json.loads((run / "report.json").read_text())
    assert report["oracle"]["value"] == 1.0
    assert report["steps"] == 2
    with open_journal(run) as journal:
        episodes = [episode for group in journal.load_groups().values() for episode in group.trajectories]
    assert [episode.failure for episode in episodes] == [None] * len(episodes)
    scored = [turn.reward_terms for episode in episodes for turn in episode.turns if turn.reward_terms]
    assert all({"passed", "partial", "format"} <= terms.keys() for terms in scored)
