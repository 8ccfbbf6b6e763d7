"""Where metrics of a run go besides `metrics.jsonl`: one file per service, each behind `Tracker`. Write-only.

A tracker of your own is a function of a `TrackedRun` that returns a `Tracker`; name it in `trackers.custom`. What a
service cannot take is a warning, never the end of a run: `metrics.jsonl` has everything.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from agent_rl.errors import ConfigError, UserError
from agent_rl.registry import Registry
from agent_rl.trackers.config import TrackersConfig

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """One place that metrics are written to."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write all metrics of one step; steps ascend."""
        ...

    def close(self) -> None:
        """Flush and release; called once."""
        ...


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run that a tracker is opened for. `resume_step` is the last step that counts, -1 in a new run."""

    run_dir: Path
    resume_step: int = -1
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def remembered(self, name: str, make: Callable[[], str] = lambda: uuid.uuid4().hex) -> str:
        """The id of this run at a service: made once, then kept in `RUN/<name>_id`, so that a resumed run goes on."""
        file = self.run_dir / f"{name}_id"
        if not file.exists():
            file.write_text(make())
        return file.read_text()


OpenTracker = Callable[[TrackedRun], Tracker]
_TRACKERS: Registry[OpenTracker] = Registry("tracker", "a function of a TrackedRun", "agent_rl.trackers", callable)


def register_tracker(id: str, entry: OpenTracker | str) -> None:
    """Make a tracker known as `id`, for `trackers.custom`; like `agent_rl.register_environment`."""
    _TRACKERS.register(id, entry)


def open_trackers(config: TrackersConfig, run: TrackedRun) -> list[Tracker]:
    """All that `config` asks for. Raises `UserError` for one that is unknown, not installed, or cannot start."""
    wanted: dict[str, OpenTracker] = {name: _TRACKERS.get(name) for name in config.custom}
    if config.tensorboard:
        from agent_rl.trackers.tensorboard import TensorBoard

        wanted["TensorBoard"] = TensorBoard
    if config.wandb is not None:
        from agent_rl.trackers.wandb import open_wandb

        wanted["Weights & Biases"] = open_wandb(config.wandb)
    if config.mlflow is not None:
        from agent_rl.trackers.mlflow import open_mlflow

        wanted["MLflow"] = open_mlflow(config.mlflow)
    if config.trackio is not None:
        from agent_rl.trackers.trackio import open_trackio

        wanted["trackio"] = open_trackio(config.trackio)
    if config.prometheus is not None:
        from agent_rl.trackers.prometheus import open_prometheus

        wanted["Prometheus"] = open_prometheus(config.prometheus)
    return _opened(wanted, run)


def _opened(wanted: Mapping[str, OpenTracker], run: TrackedRun) -> list[Tracker]:
    """All, or none: what was opened before one that fails is closed."""
    trackers: list[Tracker] = []
    with ExitStack() as opened:
        for name, start in wanted.items():
            try:
                tracker = _Forgiving(name, start(run))
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"{name} cannot be started: {error}") from error
            opened.callback(tracker.close)
            trackers.append(tracker)
        opened.pop_all()
    return trackers


class _Forgiving:
    """A tracker whose errors are told once and otherwise do nothing."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._told = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._telling():
            self._tracker.log(step, metrics)

    def close(self) -> None:
        with self._telling():
            self._tracker.close()

    @contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # another's code and service
            if not self._told:
                _log.warning("%s does not take metrics, the run goes on without it: %s", self._name, error)
            self._told = True


def needs(module: str, extra: str, name: str) -> Any:
    """The module of a service. Raises `ConfigError`, which says what to install, where it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{name} is not installed: pip install 'agent-rl[{extra}]'.") from error
