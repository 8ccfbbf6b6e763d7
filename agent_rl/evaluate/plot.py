"""The learning curve of a run as a picture. Reads `metrics.jsonl`; imports matplotlib only when it draws."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from agent_rl.evaluate.statistics import Estimate

SMOOTHING = 0.8


def learning_curve(metrics_file: Path, picture: Path, references: Mapping[str, float | Estimate]) -> None:
    """Draw the reward per training step into `picture` (PNG), with horizontal lines for the references.

    A reference with an interval is drawn with its band.
    """
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
    points = [(row["step"], row["rollout/reward"]) for row in rows if row.get("rollout/reward") is not None]
    steps, rewards = [step for step, _ in points], [reward for _, reward in points]
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, rewards, color="C0", alpha=0.3, linewidth=1)
    axes.plot(steps, smoothed(rewards, SMOOTHING), color="C0", linewidth=2, label="training episodes")
    for index, (name, reference) in enumerate(references.items(), start=1):
        value = reference.value if isinstance(reference, Estimate) else reference
        axes.axhline(value, color=f"C{index}", linestyle="--", linewidth=1.2, label=f"{name} ({value:.1%})")
        if isinstance(reference, Estimate):
            axes.axhspan(reference.low, reference.high, color=f"C{index}", alpha=0.12, linewidth=0)
    axes.set(xlabel="training step", ylabel="mean reward", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(picture)


def smoothed(values: list[float], memory: float) -> list[float]:
    """Exponential moving average that starts at the first value."""
    result: list[float] = []
    for value in values:
        result.append(value if not result else memory * result[-1] + (1 - memory) * value)
    return result
