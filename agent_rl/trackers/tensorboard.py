"""Scalars for TensorBoard, through its own writer, which needs neither torch nor TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from agent_rl.trackers import TrackedRun


class TensorBoard:
    """Writes `RUN/tensorboard`."""

    def __init__(self, run: TrackedRun) -> None:
        self._events: Any = import_module("tensorboard.compat.proto.event_pb2")
        self._summaries: Any = import_module("tensorboard.compat.proto.summary_pb2")
        writers: Any = import_module("tensorboard.summary.writer.event_file_writer")
        self._writer = writers.EventFileWriter(str(run.run_dir / "tensorboard"))
        if run.resume_step >= 0:  # a start marker makes TensorBoard forget what an earlier file has from this step on
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(run.resume_step + 1, session_log=start)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write and flush."""
        values = [self._summaries.Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(step, summary=self._summaries.Summary(value=values))
        self._writer.flush()

    def _add(self, step: int, **content: object) -> None:
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        """Ends the writer's thread."""
        self._writer.close()
