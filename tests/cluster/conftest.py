"""A Ray of two nodes on this machine, and a run on it that is small enough for tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
import torch
from ray.cluster_utils import Cluster

from agent_rl.cluster.connect import configure, connected
from agent_rl.cluster_config import ClusterConfig
from agent_rl.config import Config
from agent_rl.environment import Environment, EnvironmentSpec
from agent_rl.store.opening import open_journal
from agent_rl.train import Progress
from agent_rl.types import Message, Step
from tests.integration.train_parity import Parity, parity_config, train_parity

CPUS = 8  # that each node says it has
STEP_S = 0.02  # so that something runs whenever something is killed


class Slow(Parity):
    """Takes its time."""

    async def step(self, action: Message) -> Step:
        await anyio.sleep(STEP_S)
        return await super().step(action)


def run(folder: Path, kind: type[Environment] = Slow, **options: Any) -> tuple[Progress, torch.nn.Module]:
    """Train the tiny model of `train_parity`, from the same random weights each time."""
    folder.mkdir(exist_ok=True)
    config = parity_config(**options.pop("config", {}))
    return anyio.run(partial(train_parity, folder, config, EnvironmentSpec(kind, Config()), **options))


def consumed(folder: Path) -> list[tuple[int, tuple[int, ...]]]:
    with open_journal(folder) as journal:
        return journal.consumed()


def actors(kind: str) -> list[psutil.Process]:
    """The processes of our actors of a kind, the oldest first."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ray::{kind}" in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return sorted(found, key=lambda process: process.create_time())


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    configure()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS, "include_dashboard": False})
    try:
        with connected(ClusterConfig(address=cluster.address)):  # now, so that it is connected to the head
            cluster.add_node(num_cpus=CPUS)
            yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """The same run without a cluster: what every test expects."""
    folder = tmp_path_factory.mktemp("in_process")
    return folder, run(folder)[1]
