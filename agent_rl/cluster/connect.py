"""Ray for one run: a running one that is joined, or one that is started on this machine and ends with the run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import ray
from ray.cluster_utils import Cluster

from agent_rl.cluster_config import ClusterConfig
from agent_rl.errors import UserError

_POLL_S = 0.5


def configure() -> None:
    """Settings of a Ray that is started here, where the environment has no others."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15, whatever else runs here would go before the run


@contextmanager
def connected(config: ClusterConfig) -> Generator[None, None, None]:
    """This process is Ray's driver while the block is open. Raises `UserError` when the nodes do not come."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    configure()
    if config.address:
        with _driver(address=config.address, log_to_driver=False, logging_level=logging.ERROR):
            _wait_for_nodes(config)
            yield
    elif config.nodes == 1:
        with _driver(address="local", num_cpus=_cpus(config), **quiet):
            yield
    else:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": _cpus(config), "include_dashboard": False})
        try:
            for _ in range(config.nodes - 1):
                cluster.add_node(num_cpus=_cpus(config))
            with _driver(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR):
                yield
        finally:
            cluster.shutdown()


@contextmanager
def _driver(**options: Any) -> Generator[None, None, None]:
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise UserError(f"There is no Ray at {options.get('address')}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _cpus(config: ClusterConfig) -> int:
    """What a node of this machine says it has: enough for all, since they share the real ones anyway."""
    engines = config.inference_replicas * config.cpus_per_replica
    wanted = config.workers * config.cpus_per_worker + engines + config.learner_ranks * config.cpus_per_rank
    return max(os.cpu_count() or 1, int(wanted) + 1)


def _wait_for_nodes(config: ClusterConfig) -> None:
    ends_at = time.monotonic() + config.start_timeout_s
    while (there := sum(node["Alive"] for node in ray.nodes())) < config.nodes:
        if time.monotonic() > ends_at:
            raise UserError(
                f"Ray at {config.address} has {there} nodes after {config.start_timeout_s:.0f} s, not {config.nodes}: "
                "add nodes, or lower cluster.nodes."
            )
        time.sleep(_POLL_S)
