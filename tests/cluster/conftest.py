"""A Ray of two nodes on this machine, and a run on it that is small enough for tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
import torch
from ray.cluster_utils import Cluster

from agent_rl.cluster.connect import connected
from agent_rl.cluster_config import ClusterConfig
from agent_rl.curriculum import shuffled_epochs
from agent_rl.environment import Environment
from agent_rl.learner.config import LearnerConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.opening import open_journal
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.train import Progress, train
from agent_rl.train_config import TrainConfig
from agent_rl.types import Message, Step, Task

CPUS = 8  # that each node says it has
STEP_S = 0.02  # so that something runs whenever something is killed


class Parity(Environment):
    """Two turns of any text; an answer of even length is worth 1. Random policies get both rewards."""

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> list[Task]:
        return [Task(f"parity-{i}", (Message("user", f"say {i}"),)) for i in range(count)]

    async def reset(self, task: Task, seed: int) -> tuple[Message, ...]:
        self._turns = 0
        return task.prompt

    async def step(self, action: Message) -> Step:
        await anyio.sleep(STEP_S)
        self._turns += 1
        return Step((Message("user", "again"),), float(len(action.content) % 2 == 0), terminated=self._turns == 2)


def config_of(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "steps": 4,
        "groups_per_batch": 2,
        "group_size": 4,
        "max_concurrent_episodes": 8,
        "checkpoint_every": 2,
        "deterministic": True,
        "limits": RolloutLimits(max_turns=3, max_response_tokens=8, max_context_tokens=96),
        "learner": LearnerConfig(learning_rate=1e-3, token_budget=256),
    }
    return TrainConfig(**{**values, **changes})


def run(folder: Path, config: TrainConfig, **options: Any) -> tuple[Progress, torch.nn.Module]:
    """Train a tiny model from random weights, the same ones each time."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    tokenizer = make_tokenizer(["say again 0123456789"], vocab_size=300)
    model = make_model(tokenizer, hidden_size=32, layers=1, heads=1, max_context=96)
    with torch.no_grad():  # random weights rarely end a turn: make the end likely, so that rewards differ
        model.get_input_embeddings().weight[tokenizer.eos_token_id] *= 60
    defaults = {"environment": lambda task: Parity()}
    progress = anyio.run(
        functools.partial(
            train,
            config,
            run_dir=folder,
            model=model,
            tokenizer=tokenizer,
            task_at=shuffled_epochs(Parity.tasks("train", 5), config.seed),
            **{**defaults, **options},
        )
    )
    return progress, model


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
    return folder, run(folder, config_of())[1]
