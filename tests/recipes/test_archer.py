"""The comparison at small scale: it compares, goes on where it stopped, and draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_rl.cli import main

SMALL = [
    *("--methods", "archer", "rloo", "--warm-start.demonstrations", "20", "--warm-start.max-steps", "10"),
    *("--warm-start.check-every", "5", "--warm-start.max-implausible", "1", "--warm-start.last-steps", "0"),
    *("--warm-start.check-episodes", "4", "--archer.utterance-critic.updates", "1"),
    *("--archer.utterance-critic.alone-steps", "1"),
    *(
        f"--{method}.{option}"
        for method in ("archer", "rloo")
        for option in ("steps=2", "groups-per-batch=2", "group-size=2")
    ),
]


def compare(folder: Path, *options: str) -> dict[str, object]:
    assert main(["train", "archer", "--run-dir", str(folder), *SMALL, *options]) == 0
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_methods_are_compared_and_finished_runs_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = compare(folder, "--seeds", "1")
    assert {name: found["runs"] for name, found in report["methods"].items()} == {"archer": 1, "rloo": 1}
    assert "<svg" in (folder / "archer.svg").read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*-0/metrics.jsonl")}
    assert len(before) == 2
    report = compare(folder, "--seeds", "2", "--resume", "--picture", str(tmp_path / "curves.svg"))
    assert {name: found["runs"] for name, found in report["methods"].items()} == {"archer": 2, "rloo": 2}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "archer (2 seeds)" in (tmp_path / "curves.svg").read_text()
    steps = [json.loads(line) for line in (folder / "archer-1/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps] == [1, 2]
    assert "critic/q_loss" in steps[0]
    assert ["learner/loss" in row for row in steps] == [False, True], "the critic learns alone at first"
