"""The published results: runs each command for each of its seeds, and writes docs/results.md. `make results` calls it.

A run that is complete is read, one that was stopped goes on, others are started, one after the other; all stay in
`--runs`. `--only` limits the work to some; the page then keeps the other rows as they are in docs/results.json, which
holds the numbers of every seed.

    python benchmarks/results.py
    python benchmarks/results.py --only quickstart,shuffled_rewards
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent_rl.evaluate.statistics import Estimate, mean

ROOT = Path(__file__).parents[1]
NUMBERS = ROOT / "docs" / "results.json"
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- written by `make results` -->", "<!-- the end of what is written -->"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A command that is run with seeds 0, 1, ..., and what it is to show."""

    claim: str
    command: str
    seeds: int


EXPERIMENTS = {
    "quickstart": Experiment("a tiny model learns to query databases", "train quickstart", 5),
    "quickstart_hard": Experiment("the same, two dependent queries per task", "train quickstart --hard", 3),
    "shuffled_rewards": Experiment("control: rewards are shuffled", "train quickstart --control shuffled_rewards", 3),
    "supervised_only": Experiment(
        "control: imitation goes on instead", "train quickstart --control supervised_only", 3
    ),
    "browser_forms": Experiment("a tiny model learns to use web pages in Chromium", "train browser_forms", 3),
}
SAMPLES = {"archer": "train archer"}  # recipes that run several methods and seeds by themselves


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join((*EXPERIMENTS, *SAMPLES)), help="names, separated by commas")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results", help="where the runs are")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - {*EXPERIMENTS, *SAMPLES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join((*EXPERIMENTS, *SAMPLES))}")
    numbers = json.loads(NUMBERS.read_text()) if NUMBERS.is_file() else {}
    for name in names:
        if experiment := EXPERIMENTS.get(name):
            folders = [options.runs / f"{name}-{seed}" for seed in range(experiment.seeds)]
            commands = [f"{experiment.command} --seed {seed}" for seed in range(experiment.seeds)]
            numbers[name] = [_of_seed(_report(*run)) for run in zip(commands, folders, strict=True)]
        else:
            numbers[name] = _report(SAMPLES[name], options.runs / name)["methods"]
        NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
        _write_page(numbers)


def _report(command: str, folder: Path) -> dict[str, Any]:
    """The `report.json` of a run, which goes on, or is started, if it has none."""
    report = folder / "report.json"
    if not report.is_file():
        print(f"agent-rl {command}", flush=True)
        resume = ["--resume"] if (folder / "config.json").is_file() else []
        words = [*shlex.split(command), "--run-dir", str(folder), *resume]
        start = "import sys; from agent_rl.cli import main; sys.exit(main())"
        subprocess.run([sys.executable, "-c", start, *words], check=True, cwd=ROOT)
    return json.loads(report.read_text())


def _of_seed(report: dict[str, Any]) -> dict[str, float]:
    scores = {name: report[name]["value"] for name in ("random", "success_before", "success_after", "oracle")}
    return {"seed": report["seed"], **scores, "tasks": report["evaluations"]["after RL"]["overall"]["tasks"]}


def _write_page(numbers: dict[str, Any]) -> None:
    gains = [_gain(experiment, numbers[name]) for name, experiment in EXPERIMENTS.items() if name in numbers]
    samples = [row for name, command in SAMPLES.items() if name in numbers for row in _samples(command, numbers[name])]
    tables = [
        _table("what | command, with `--seed` 0, 1, ... | seeds | random | before RL | after RL | gain", gains),
        _table("command | method | seeds | reached the target | episodes until then", samples),
    ]
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{''.join(tables)}{END}{rest.split(END)[1]}")


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([f"| {head} |", "|" + "---|" * (head.count("|") + 1), *rows, "", ""]) if rows else ""


def _gain(experiment: Experiment, seeds: list[dict[str, float]]) -> str:
    scores = ("random", "success_before", "success_after")
    random, before, after = (np.array([seed[score] for seed in seeds]) for score in scores)
    shown = [f"{random.mean():.1%}", *(_percent(mean(values)) for values in (before, after, after - before))]
    return f"| {experiment.claim} | `agent-rl {experiment.command}` | {len(seeds)} | {' | '.join(shown)} |"


def _samples(command: str, methods: dict[str, Any]) -> list[str]:
    rows = []
    for method, of in methods.items():
        low, value, high = (of["episodes"][key] for key in ("low", "value", "high"))
        episodes = f"{value:,.0f} [{low:,.0f}, {high:,.0f}]"
        rows.append(f"| `agent-rl {command}` | {method} | {of['runs']} | {of['reached']} | {episodes} |")
    return rows


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


if __name__ == "__main__":
    main()
