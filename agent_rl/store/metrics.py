"""Metrics out of a run: `metrics.jsonl` and its trackers. Write-only: nothing here is read back to decide."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent_rl.trackers import TrackedRun, Tracker, open_trackers
from agent_rl.trackers.config import TrackersConfig

JSONL = "metrics.jsonl"


class MetricsLogger:
    """Writes each step to `RUN/metrics.jsonl` and to the trackers of `config`.

    `run.resume_step` is the step of the checkpoint that the run continues from, -1 for a new run: what was logged after
    it is dropped, so that no step appears twice. Raises `UserError` for a tracker that cannot be started.
    """

    def __init__(self, run: TrackedRun, config: TrackersConfig) -> None:
        run.run_dir.mkdir(parents=True, exist_ok=True)
        self._last_step = run.resume_step
        self._trackers: list[Tracker] = open_trackers(config, run)
        self._trackers.append(_JsonLines(run.run_dir / JSONL, run.resume_step))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """All metrics of one step. Raises `ValueError` unless steps ascend."""
        if step <= self._last_step:
            raise ValueError(f"step {step} is logged after step {self._last_step}: log each step once, in order")
        self._last_step = step
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def close(self) -> None:
        """Flush and release everything. Idempotent."""
        with ExitStack() as stack:
            while self._trackers:
                stack.callback(self._trackers.pop().close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`: `step`, `time_s` (Unix seconds at its end), and every metric."""
    path = run_dir / JSONL
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


class _JsonLines:
    """One line of JSON per step, flushed, so that `tail -f` shows it; a metric that is not finite is null."""

    def __init__(self, path: Path, resume_step: int) -> None:
        _drop_lines_after(path, resume_step)
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, "time_s": time.time()} | finite) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _drop_lines_after(path: Path, step: int) -> None:
    """Rewrites the file atomically, without what was logged after `step` and without a line torn by a crash."""
    if not path.exists():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    rewritten = path.with_suffix(".tmp")
    rewritten.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    rewritten.replace(path)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
