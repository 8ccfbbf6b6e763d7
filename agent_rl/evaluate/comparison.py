"""Training methods side by side: how many samples each needed, over several seeds, and their learning curves.

Reads `metrics.jsonl`; imports matplotlib only when it draws.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from agent_rl.evaluate.statistics import Estimate, mean, t_critical

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One run, step by step (S): episodes and turns played so far, and the mean reward of the step's own."""

    episodes_S: Floats
    turns_S: Floats
    reward_S: Floats


def read_curve(metrics_file: Path) -> Curve:
    """The curve of a run. Episodes that failed count for nothing: neither as samples nor in the mean."""
    rows = [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
    played = [row for row in rows if row["rollout/episodes"]]
    columns = [[row[f"rollout/{name}"] for row in played] for name in ("episodes", "turns", "reward")]
    episodes_S, turns_S, reward_S = (np.array(column, np.float64) for column in columns)
    return Curve(episodes_S.cumsum(), (episodes_S * turns_S).cumsum(), reward_S)


def trailing_mean(values_S: Floats, window: int) -> Floats:
    """The mean of each value and those before it, `window` in all; fewer at the beginning."""
    sums = np.concatenate([[0.0], values_S.cumsum()])
    ends = np.arange(1, len(values_S) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


@dataclass(frozen=True, slots=True)
class Samples:
    """What `runs` runs needed, with t intervals. Runs that never got there (`runs` - `reached`) count as all they had,
    so that the means are lower bounds."""

    runs: int
    reached: int
    episodes: Estimate
    turns: Estimate


def samples_to(curves: Sequence[Curve], target: float, window: int) -> Samples:
    """Samples until the mean reward of `window` steps first reached `target`."""
    at = [_first(trailing_mean(curve.reward_S, window)[window - 1 :] >= target) for curve in curves]
    steps = [len(c.reward_S) - 1 if step is None else step + window - 1 for c, step in zip(curves, at, strict=True)]
    found = [np.array([getattr(c, of)[step] for c, step in zip(curves, steps, strict=True)]) for of in _COUNTS]
    return Samples(len(curves), sum(step is not None for step in at), *(mean(counts) for counts in found))


_COUNTS = ("episodes_S", "turns_S")


def _first(reached_S: NDArray[np.bool_]) -> int | None:
    return int(reached_S.argmax()) if reached_S.any() else None


def samples_report(samples: Mapping[str, Samples], target: float, window: int) -> dict[str, Any]:
    """The samples of each method as JSON, with what they were counted up to."""
    return {"target": target, "window": window, "methods": {name: asdict(found) for name, found in samples.items()}}


def samples_table(samples: Mapping[str, Samples], target: float) -> Table:
    """A row for each method; `>=` where runs never got there."""
    table = Table(title=f"Samples until {target:.0%} success, mean of the seeds with 95% t intervals")
    for column in ("method", "seeds that got there", "episodes", "turns"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, found in samples.items():
        bound = "" if found.reached == found.runs else ">= "
        counts = [f"{bound}{of.value:,.0f} [{of.low:,.0f}, {of.high:,.0f}]" for of in (found.episodes, found.turns)]
        table.add_row(name, f"{found.reached} of {found.runs}", *counts)
    return table


def draw_curves(curves: Mapping[str, Sequence[Curve]], picture: Path, *, target: float, window: int) -> None:
    """Draw the mean over runs of the reward of the last `window` steps, with its 95% t interval, against episodes.

    The format is that of the file's ending. The same curves give the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "agent-rl"}):
        figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        for index, (name, runs) in enumerate(curves.items()):
            steps = min(len(curve.reward_S) for curve in runs)
            smooth_RS = np.stack([trailing_mean(curve.reward_S[:steps], window) for curve in runs])
            episodes_S, center_S = runs[0].episodes_S[:steps], smooth_RS.mean(0)
            axes.plot(episodes_S, center_S, color=f"C{index}", label=f"{name} ({len(runs)} seeds)")
            if len(runs) > 1:
                half_S = t_critical(len(runs) - 1) * smooth_RS.std(0, ddof=1) / np.sqrt(len(runs))
                low_S, high_S = np.clip(center_S - half_S, 0, 1), np.clip(center_S + half_S, 0, 1)
                axes.fill_between(episodes_S, low_S, high_S, color=f"C{index}", alpha=0.18, linewidth=0)
        axes.axhline(target, color="0.4", linestyle="--", linewidth=1)
        axes.set(xlabel="episodes", ylabel="success of training episodes", ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)
