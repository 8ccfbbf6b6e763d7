"""The site whose parts are actors of Ray."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import ray
import ray.cloudpickle

from agent_rl.cluster.connect import connected
from agent_rl.cluster.learner import RemoteLearner, open_learner
from agent_rl.cluster.players import ClusterPlayers
from agent_rl.cluster_config import ClusterConfig
from agent_rl.errors import ConfigError
from agent_rl.learner.ranks import copy_to
from agent_rl.registry import SCRIPT_MODULE
from agent_rl.rollout.control import RolloutControl
from agent_rl.site import Cast
from agent_rl.train_config import TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agent_rl.learner.critic_config import CriticConfig


class ClusterSite:
    """A `Site` on a Ray that this process is connected to. A critic with a decoder of its own stays in this process."""

    learners = 10

    def __init__(self, cluster: ClusterConfig) -> None:
        self._cluster = cluster

    @asynccontextmanager
    async def learner(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: TrainConfig,
        values: CriticConfig | None,
    ) -> AsyncGenerator[RemoteLearner, None]:
        """See `Site.learner`."""
        opening = open_learner(self._cluster, copy_to(model, "cpu"), tokenizer, _plain(config), values)
        with ExitStack() as stack:
            learner = await anyio.to_thread.run_sync(stack.enter_context, opening)
            yield learner
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(stack.close)

    @asynccontextmanager
    async def players(self, cast: Cast, folder: Path, control: RolloutControl) -> AsyncGenerator[ClusterPlayers, None]:
        """See `Site.players`."""
        if cast.program is not None:
            raise ConfigError("Agent programs run beside the trainer, in one process: leave out cluster.")
        _send_scripts()
        sent = ray.put(replace(cast, config=_plain(cast.config), model=copy_to(cast.model, "cpu")))
        episodes = cast.config.max_concurrent_episodes
        path = Path(await anyio.Path(folder).resolve())
        players = ClusterPlayers(self._cluster, sent, path, episodes, control.turns)
        async with players.running():
            control.workers = players
            try:
                yield players
            finally:
                control.workers = None


@contextmanager
def open_cluster(config: ClusterConfig) -> Generator[ClusterSite, None, None]:
    """A cluster for one run."""
    with connected(config):
        yield ClusterSite(config)


def _plain(config: TrainConfig) -> TrainConfig:
    """Without the fields that a recipe adds, whose class other processes may be unable to import."""
    return TrainConfig.model_construct(**{name: getattr(config, name) for name in TrainConfig.model_fields})


def _send_scripts() -> None:
    """Send the code of what was defined in a recipe's script with it: there is no such module elsewhere."""
    for name, module in list(sys.modules.items()):
        if name.startswith(SCRIPT_MODULE):
            ray.cloudpickle.register_pickle_by_value(module)
