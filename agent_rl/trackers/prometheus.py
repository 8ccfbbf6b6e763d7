"""An endpoint for Prometheus with the metrics of the last step, for runs of days."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping
from typing import Any

from agent_rl.errors import UserError
from agent_rl.trackers import OpenTracker, TrackedRun, Tracker, needs
from agent_rl.trackers.config import PrometheusConfig


def open_prometheus(config: PrometheusConfig) -> OpenTracker:
    """The tracker of a run. Raises `UserError` where the port is taken."""
    client = needs("prometheus_client", "serve", "The Prometheus client")

    def start(run: TrackedRun) -> Tracker:
        return _Prometheus(client, config, run)

    return start


class _Prometheus:
    """A collector of its own registry, read by the client's server in a thread."""

    def __init__(self, client: Any, config: PrometheusConfig, run: TrackedRun) -> None:
        self._gauge: Any = client.metrics_core.GaugeMetricFamily
        self._run = run.run_dir.name
        self._latest: Mapping[str, float] = {}
        registry = client.CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = client.start_http_server(config.port, config.address, registry)
        except OSError as error:
            at = f"{config.address}:{config.port}"
            raise UserError(f"Prometheus cannot listen at {at} ({error}): set trackers.prometheus.port.") from error
        self.port: int = self._server.server_port

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._latest = {"step": step, "step_finished_seconds": time.time(), **metrics}

    def collect(self) -> Generator[Any]:
        """What the client's server asks for, in its thread."""
        for name, value in self._latest.items():
            gauge = self._gauge(prometheus_name(name), f"{name} of the last training step", labels=["run"])
            gauge.add_metric([self._run], value)
            yield gauge

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def prometheus_name(metric: str) -> str:
    """`reward/mean` as `agent_rl_reward_mean`."""
    return "agent_rl_" + re.sub(r"\W", "_", metric, flags=re.ASCII)
