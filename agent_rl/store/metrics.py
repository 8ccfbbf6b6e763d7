"""Metrics out of a run: JSON lines, TensorBoard, Weights & Biases. Write-only: nothing here is read back to decide."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from agent_rl.errors import ConfigError

JSONL = "metrics.jsonl"


class Tracker(Protocol):
    """One place that metrics are written to."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write all metrics of one step; steps ascend."""
        ...

    def close(self) -> None:
        """Flush and release; called once."""
        ...


class MetricsLogger:
    """Writes each step to `RUN/metrics.jsonl`, to `RUN/tensorboard` and, with `wandb_project`, to Weights & Biases.

    `resume_step` is the step of the checkpoint that the run continues from, -1 for a new run: what was logged after it
    is dropped, so that no step appears twice. Raises `ConfigError` when W&B is asked for and not installed.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        resume_step: int = -1,
        wandb_project: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._last_step = resume_step
        self._trackers: list[Tracker] = []
        if wandb_project is not None:
            self._trackers.append(_WandbTracker(run_dir, wandb_project, config or {}))
        self._trackers.append(_JsonlTracker(run_dir / JSONL, resume_step))
        self._trackers.append(_TensorBoardTracker(run_dir / "tensorboard", resume_step))

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


class _JsonlTracker:
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


class _TensorBoardTracker:
    """Scalars through TensorBoard's own writer, which needs neither torch nor TensorFlow."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        self._events: Any = import_module("tensorboard.compat.proto.event_pb2")
        self._summaries: Any = import_module("tensorboard.compat.proto.summary_pb2")
        writers: Any = import_module("tensorboard.summary.writer.event_file_writer")
        self._writer = writers.EventFileWriter(str(folder))
        if resume_step >= 0:  # a start marker makes TensorBoard forget what an earlier file has from this step on
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(resume_step + 1, session_log=start)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        values = [self._summaries.Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(step, summary=self._summaries.Summary(value=values))
        self._writer.flush()

    def _add(self, step: int, **content: object) -> None:
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        self._writer.close()


class _WandbTracker:
    """A Weights & Biases run that goes on when the training run is resumed: its id is kept in `RUN/wandb_id`."""

    def __init__(self, run_dir: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            wandb: Any = import_module("wandb")
        except ModuleNotFoundError as error:
            raise ConfigError("Weights & Biases is not installed: pip install 'agent-rl[wandb]'.") from error
        id_file = run_dir / "wandb_id"
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex)
        self._run = wandb.init(
            project=project,
            id=id_file.read_text(),
            resume="allow",
            name=run_dir.name,
            dir=str(run_dir),
            config=dict(config),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()
