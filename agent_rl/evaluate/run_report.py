"""What a run leaves for people: `report.json`, a table, a learning curve, a transcript before and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from agent_rl.evaluate.plot import learning_curve
from agent_rl.evaluate.report import Report, to_table
from agent_rl.evaluate.statistics import Estimate
from agent_rl.evaluate.transcript import transcript
from agent_rl.store.metrics import JSONL
from agent_rl.store.run_folder import REPORT
from agent_rl.types import Group

BEFORE, AFTER, RANDOM, ORACLE = "before RL", "after RL", "random agent", "oracle"


class RunReport:
    """Collects the evaluations of one run by name, then writes and prints what they say."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._reports: dict[str, Report] = {}

    def add(self, name: str, report: Report) -> None:
        """Keep an evaluation; `BEFORE`, `AFTER`, `RANDOM` and `ORACLE` have fields of their own in `report.json`."""
        self._reports[name] = report

    def transcripts(self, name: str) -> Callable[[Group], None]:
        """A callback for `evaluate(on_group=...)` that writes the first task's episode to `transcript_<name>.md`."""
        written = False

        def write(group: Group) -> None:
            nonlocal written
            if group.index == 0 and not written:
                written = True
                (self._folder / f"transcript_{name}.md").write_text(transcript(group.trajectories[0]), encoding="utf-8")

        return write

    def finish(self, *, title: str, next_commands: list[str], **facts: Any) -> dict[str, Any]:
        """Write `report.json` and `learning_curve.png`, print the table and where everything is; returns the report.

        `facts` (steps, tokens, seed, wall_s, ...) go into `report.json` as they are.
        """
        content = {
            "success_before": _success(self._reports[BEFORE]),
            "success_after": _success(self._reports[AFTER]),
            "random": _success(self._reports[RANDOM]),
            "oracle": _success(self._reports[ORACLE]),
            **facts,
            "evaluations": {name: report.to_json() for name, report in self._reports.items()},
        }
        (self._folder / REPORT).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        self._draw()
        self._console.print(to_table(self._reports, title=title))
        self._console.print(
            f"{facts.get('wall_s', 0):.0f} s in all. Run folder: [bold]{self._folder}[/] "
            "(report.json, learning_curve.png, transcript_before.md, transcript_after.md)"
        )
        self._console.print("Next:")
        for command in next_commands:
            self._console.print(f"  {command}", highlight=False, soft_wrap=True)
        return content

    def _draw(self) -> None:
        metrics = self._folder / JSONL
        if metrics.is_file():
            references: dict[str, Estimate] = {
                name: report.overall.success for name, report in self._reports.items() if report.overall is not None
            }
            learning_curve(metrics, self._folder / "learning_curve.png", references)


def _success(report: Report) -> dict[str, Any] | None:
    """Success with its interval, in all and by tag; `None` when no episode counted."""
    if report.overall is None:
        return None
    by_tag = {tag: _interval(score.success) for tag, score in report.by_tag.items()}
    return {**_interval(report.overall.success), "by_tag": by_tag}


def _interval(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
