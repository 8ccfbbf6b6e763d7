"""Samples to a target and curves, from metrics written by hand."""

import json

import numpy as np
import pytest
from rich.console import Console

from agent_rl.evaluate.comparison import (
    draw_curves,
    read_curve,
    samples_report,
    samples_table,
    samples_to,
    trailing_mean,
)
from agent_rl.evaluate.statistics import mean


def write(path, rewards, episodes=4, turns=3.0):
    rows = [
        {"step": i + 1, "rollout/episodes": episodes, "rollout/turns": turns, "rollout/reward": r}
        for i, r in enumerate(rewards)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_curve(path)


def test_a_curve_counts_what_was_played(tmp_path):
    curve = write(tmp_path / "m.jsonl", [0.0, 0.5])
    assert curve.episodes_S.tolist() == [4, 8]
    assert curve.turns_S.tolist() == [12, 24]
    assert curve.reward_S.tolist() == [0.0, 0.5]


def test_a_step_without_an_episode_is_no_point(tmp_path):
    path = tmp_path / "m.jsonl"
    write(path, [0.5])
    path.write_text(json.dumps({"step": 1, "rollout/episodes": 0.0}) + "\n" + path.read_text())
    assert read_curve(path).reward_S.tolist() == [0.5]


def test_the_trailing_mean_begins_with_what_there_is():
    assert trailing_mean(np.array([1.0, 3.0, 5.0, 0.0]), 2).tolist() == [1.0, 2.0, 4.0, 2.5]


def test_samples_to_a_target(tmp_path):
    late = write(tmp_path / "a", [0.0, 1.0, 1.0, 1.0])  # the mean of two steps is 1 at the third
    early = write(tmp_path / "b", [1.0, 1.0, 0.0, 0.0])
    found = samples_to([late, early], 0.9, window=2)
    assert (found.runs, found.reached) == (2, 2)
    assert found.episodes == mean(np.array([12.0, 8.0]))
    assert found.turns.value == 30.0


def test_a_lucky_first_step_is_no_success(tmp_path):
    assert samples_to([write(tmp_path / "a", [1.0, 0.0, 0.0])], 0.9, window=2).reached == 0


def test_runs_that_never_got_there_count_as_all_they_had(tmp_path):
    found = samples_to([write(tmp_path / "a", [0.0, 0.0, 0.0]), write(tmp_path / "b", [1.0, 1.0, 1.0])], 0.9, window=1)
    assert (found.reached, found.episodes.value) == (1, (12 + 4) / 2)


def test_the_table_marks_lower_bounds_and_the_report_holds_all_numbers(tmp_path):
    runs = [write(tmp_path / "a", [0.0, 0.0]), write(tmp_path / "b", [1.0, 1.0])]
    samples = {"never": samples_to(runs[:1], 0.9, window=1), "always": samples_to(runs[1:], 0.9, window=1)}
    console = Console(width=120)
    with console.capture() as captured:
        console.print(samples_table(samples, 0.9))
    never, always = (line for line in captured.get().splitlines() if "of 1" in line)
    assert "0 of 1" in never
    assert ">= 8" in never
    assert "1 of 1" in always
    assert ">=" not in always
    report = json.loads(json.dumps(samples_report(samples, 0.9, 1)))
    assert (report["target"], report["window"], list(report["methods"])) == (0.9, 1, ["never", "always"])
    assert report["methods"]["never"]["reached"] == 0
    assert report["methods"]["always"]["turns"]["value"] == 12


def test_the_picture_is_the_same_each_time(tmp_path):
    curves = {
        "one": [write(tmp_path / "a", [0.0, 1.0]), write(tmp_path / "b", [0.5, 1.0])],
        "other": [write(tmp_path / "c", [0.1])],
    }
    for name in ("x.svg", "y.svg"):
        draw_curves(curves, tmp_path / name, target=0.8, window=2)
    drawn = (tmp_path / "x.svg").read_text()
    assert drawn == (tmp_path / "y.svg").read_text()
    assert "one (2 seeds)" in drawn
    with pytest.raises(ValueError, match="needs at least one"):
        samples_to([], 0.8, 1)
