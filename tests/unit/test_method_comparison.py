"""Comparisons of training methods, with runs that only write metrics: what is run, what is kept, what is found."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from agent_rl.evaluate.comparison import Curve
from agent_rl.method_comparison import ComparisonConfig, TrainRun, conclude, is_finished, planned, run_all
from agent_rl.store.metrics import JSONL
from agent_rl.train_config import TrainConfig

pytestmark = pytest.mark.anyio

METHODS = {"fast": TrainConfig(steps=2, estimator="rloo"), "slow": TrainConfig(steps=3, estimator="rloo", seed=7)}


def write(run_dir: Path, rewards: list[float]) -> None:
    rows = [
        {"step": step, "rollout/episodes": 4, "rollout/turns": 2.0, "rollout/reward": reward}
        for step, reward in enumerate(rewards, 1)
    ]
    run_dir.mkdir(exist_ok=True)
    (run_dir / JSONL).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def winning(trained: list[str]) -> TrainRun:
    """A run that fails at first and then always wins; `trained` are the folders of those that were made."""

    async def train_run(options: TrainConfig, run_dir: Path) -> None:
        trained.append(run_dir.name)
        write(run_dir, [0.0, *[1.0] * (options.steps - 1)])

    return train_run


def test_all_methods_of_one_seed_come_first_and_seeds_count_from_their_own() -> None:
    runs = list(planned(METHODS, 2))
    assert [(name, options.seed) for name, options in runs] == [("fast", 0), ("slow", 7), ("fast", 1), ("slow", 8)]
    assert [options.steps for _, options in runs] == [2, 3, 2, 3]


def test_a_run_is_finished_with_the_metrics_of_its_last_step(tmp_path: Path) -> None:
    assert not is_finished(tmp_path / "run", 2)
    write(tmp_path / "run", [0.0])
    assert not is_finished(tmp_path / "run", 2)
    write(tmp_path / "run", [0.0, 1.0])
    assert is_finished(tmp_path / "run", 2)


async def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    trained: list[str] = []
    await run_all(METHODS, 1, tmp_path, winning(trained))
    assert trained == ["fast-0", "slow-7"]
    write(tmp_path / "slow-7", [0.5])  # as if it had been stopped
    trained.clear()
    curves = await run_all(METHODS, 2, tmp_path, winning(trained))
    assert trained == ["slow-7", "fast-1", "slow-8"]
    assert {name: [run.reward_S.tolist() for run in runs] for name, runs in curves.items()} == {
        "fast": [[0.0, 1.0]] * 2,
        "slow": [[0.0, 1.0, 1.0]] * 2,
    }


async def test_methods_with_one_estimator_have_folders_of_their_own(tmp_path: Path) -> None:
    trained: list[str] = []
    options = METHODS["fast"]
    await run_all({"low_rate": options, "high_rate": options}, 1, tmp_path, winning(trained))
    assert trained == ["low_rate-0", "high_rate-0"]


async def test_the_report_the_picture_and_the_table_say_what_each_needed(tmp_path: Path) -> None:
    curves: dict[str, list[Curve]] = await run_all(METHODS, 2, tmp_path, winning([]))
    console = Console(file=io.StringIO(), width=120)
    config = ComparisonConfig(methods=tuple(METHODS), target=0.9, window=1)
    samples = conclude(curves, config, tmp_path, tmp_path / "curves.svg", console)
    assert [(found.runs, found.reached, found.episodes.value) for found in samples.values()] == [(2, 2, 8), (2, 2, 8)]
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["target"], report["window"]) == (0.9, 1)
    assert report["methods"]["slow"]["turns"]["value"] == 16
    assert "slow (2 seeds)" in (tmp_path / "curves.svg").read_text()
    assert "curves.svg" in console.file.getvalue()
    assert "2 of 2" in console.file.getvalue()
