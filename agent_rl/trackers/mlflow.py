"""An MLflow run that goes on when the training run is resumed. Sent in the background."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping
from typing import Any

from agent_rl.trackers import OpenTracker, TrackedRun, Tracker, needs
from agent_rl.trackers.config import MlflowConfig

MAX_PARAMETERS = 100  # of one request
MAX_METRICS = 1000
MAX_VALUE = 6000  # characters


def open_mlflow(config: MlflowConfig) -> OpenTracker:
    """The tracker of a run."""
    mlflow = needs("mlflow", "mlflow", "MLflow")

    def start(run: TrackedRun) -> Tracker:
        client = mlflow.MlflowClient(tracking_uri=config.tracking_uri)

        def create() -> str:
            known = client.get_experiment_by_name(config.experiment)
            experiment = known.experiment_id if known else client.create_experiment(config.experiment)
            return client.create_run(experiment, run_name=run.run_dir.name).info.run_id

        return _Mlflow(mlflow.entities, client, run.remembered("mlflow", create), run.config)

    return start


class _Mlflow:
    def __init__(self, entities: Any, client: Any, run_id: str, config: Mapping[str, Any]) -> None:
        self._metric, self._client, self._id = entities.Metric, client, run_id
        self._sent: Any = None
        client.update_run(run_id, status="RUNNING")
        known = client.get_run(run_id).data.params  # they can be set only once
        new = [entities.Param(key, value) for key, value in _flat(config) if key not in known]
        for first in range(0, len(new), MAX_PARAMETERS):
            client.log_batch(run_id, params=new[first : first + MAX_PARAMETERS])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        rows = [self._metric(mlflow_name(name), value, now, step) for name, value in metrics.items()]
        for first in range(0, len(rows), MAX_METRICS):
            self._settle()  # one at a time: MLflow would send several at once, in any order, and its file store fails
            self._sent = self._client.log_batch(self._id, metrics=rows[first : first + MAX_METRICS], synchronous=False)

    def _settle(self) -> None:
        """Wait for what was sent last, and raise what went wrong with it, so that it is told."""
        sent, self._sent = self._sent, None
        if sent is not None:
            sent.wait()

    def close(self) -> None:
        try:
            self._settle()
        finally:
            self._client.set_terminated(self._id)


def mlflow_name(metric: str) -> str:
    """`pass@1` as `pass_1`: MLflow takes letters, digits, and `_ - . / :` and spaces."""
    return re.sub(r"[^\w\-./: ]", "_", metric)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Generator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)[:MAX_VALUE]
