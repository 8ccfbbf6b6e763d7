"""A trackio run that goes on when the training run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_rl.trackers import OpenTracker, TrackedRun, Tracker, needs
from agent_rl.trackers.config import TrackioConfig


def open_trackio(config: TrackioConfig) -> OpenTracker:
    """The tracker of a run."""
    trackio = needs("trackio", "trackio", "Trackio")

    def start(run: TrackedRun) -> Tracker:
        name = run.remembered("trackio", lambda: run.run_dir.name)
        return _Trackio(
            trackio.init(
                config.project,
                name=name,
                space_id=config.space_id,
                config=dict(run.config),
                resume="allow",
                embed=False,
            )
        )

    return start


class _Trackio:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()
