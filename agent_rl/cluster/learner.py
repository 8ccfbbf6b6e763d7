"""The learner on ranks that are actors. Rank 0 has it (`agent_rl.learner.ranks` tells the others); we ask rank 0."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.util
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from agent_rl.cluster.calls import Actor, Lost, Ref, end, wait_for
from agent_rl.cluster.weights import Sender, Update
from agent_rl.cluster_config import ClusterConfig
from agent_rl.errors import UserError
from agent_rl.learner.base import LearnerLost
from agent_rl.learner.ranks import Ranks, follow
from agent_rl.learner.watch import Seen
from agent_rl.site import make_learner
from agent_rl.types import FloatArray, IntArray, TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agent_rl.learner.critic_config import CriticConfig
    from agent_rl.learner.learner import Learner
    from agent_rl.train_config import TrainConfig

LEARNER_ENDED = "A process of the learner has ended. Use --resume."


class LearnerRank:
    """An actor: one rank of the learner. Rank 0 is told to `lead`, the others to `follow`."""

    def __init__(self, rank: int, ranks: int, gpu: bool, timeout_s: float) -> None:
        self._rank, self._count, self._gpu, self._timeout_s = rank, ranks, gpu, timeout_s
        self._ranks: Ranks | None = None
        self._learner: Learner
        self._sender: Sender

    def address(self) -> tuple[str, int]:
        """Where rank 0 can wait for the others."""
        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def follow(self, address: tuple[str, int]) -> None:
        """Do what rank 0 says until it is done. Raises `UserError` when it falls silent."""
        self._as_torchrun_would(address)
        follow(self._timeout_s)

    def lead(
        self,
        address: tuple[str, int],
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: TrainConfig,
        values: CriticConfig | None,
    ) -> bool:
        """Make the learner, on all ranks; whether it has values."""
        if self._gpu:
            model.to("cuda")  # pyright: ignore[reportArgumentType]  # its decorator hides the signature
        if self._count > 1:
            self._as_torchrun_would(address)
            self._ranks = Ranks(self._timeout_s)
        dtype = str(model.dtype).removeprefix("torch.")  # what the engines have; the learner may keep more bits
        self._learner = make_learner(model, tokenizer, config, values, self._ranks)
        self._sender = Sender(dtype)
        return self._learner.has_values

    def ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the learner."""
        return getattr(self._learner, name)(*arguments, **options)

    def step(self, seen: Seen | None, *arguments: Any, **options: Any) -> tuple[dict[str, float], Seen | None]:
        """`Learner.step`, and what it has filled `seen` with."""
        return self._learner.step(*arguments, **options, seen=seen), seen

    def weights(self) -> dict[str, torch.Tensor]:
        """`Learner.weights`, on the CPU."""
        return {name: weight.detach().cpu() for name, weight in self._learner.weights().items()}

    def advance(self) -> tuple[float, Update | None]:
        """The present weights, by what has changed since the last call, and its share of the bytes of all."""
        weights = self._learner.weights()
        update = self._sender.advance(weights)
        return 1.0 if update is None else update.data.nbytes / self._sender.nbytes, update

    def complete(self) -> Update:
        """All of the weights that the last `advance` was about."""
        return self._sender.complete()

    def close(self) -> None:
        """Let the other ranks end."""
        if self._ranks is not None:
            self._ranks.close()

    def _as_torchrun_would(self, address: tuple[str, int]) -> None:
        """Set what torch.distributed reads. Ray shows each rank its own GPU alone, so that all of them are number 0."""
        host, port = address
        told = {"RANK": self._rank, "WORLD_SIZE": self._count, "MASTER_ADDR": host, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in told.items()}, LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")


class RemoteLearner:
    """A `PolicyLearner` whose ranks are actors. Every method blocks, and raises `LearnerLost` when a rank is gone."""

    def __init__(self, lead: Actor, has_values: bool) -> None:
        self._lead = lead
        self.has_values = has_values

    def step(
        self,
        rows: Sequence[TrainingRow],
        groups: Sequence[int] | None = None,
        *,
        version: int | None = None,
        imitated: Sequence[TrainingRow] = (),
        seen: Seen | None = None,
    ) -> dict[str, float]:
        """See `Learner.step`."""
        report, found = _outcome(self._lead.step.remote(seen, rows, groups, version=version, imitated=imitated))
        if seen is not None:
            seen.logprobs, seen.entropies = found.logprobs, found.entropies
        return report

    def values(self, rows: Sequence[IntArray]) -> list[FloatArray]:
        """See `Learner.values`."""
        return self._ask("values", rows)

    def logprobs(self, rows: Sequence[TrainingRow]) -> list[FloatArray]:
        """See `Learner.logprobs`."""
        return self._ask("logprobs", rows)

    def weights(self) -> dict[str, torch.Tensor]:
        """See `Learner.weights`: a copy, on the CPU."""
        return _outcome(self._lead.weights.remote())

    def save(self, folder: Path) -> None:
        """See `Learner.save`: all ranks have to see the folder."""
        self._ask("save", folder.resolve())

    def load(self, folder: Path) -> None:
        """See `Learner.load`: all ranks have to see the folder."""
        self._ask("load", folder.resolve())

    def save_pretrained(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """See `Learner.save_pretrained`: rank 0 has to see the folder."""
        self._ask("save_pretrained", folder.resolve(), tokenizer)

    def advance(self) -> tuple[float, Ref]:
        """An `Update` to the present weights, wherever it is, and its share of the bytes of all weights.

        It is none when the engines need all of them.
        """
        share, update = self._lead.advance.options(num_returns=2).remote()
        return _outcome(share), update

    def complete(self) -> Ref:
        """An `Update` with all of the weights that the last `advance` was about."""
        return self._lead.complete.remote()

    def _ask(self, name: str, *arguments: Any) -> Any:
        return _outcome(self._lead.ask.remote(name, *arguments))


@contextmanager
def open_learner(
    cluster: ClusterConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    values: CriticConfig | None,
) -> Generator[RemoteLearner, None, None]:
    """Blocks until all ranks are there. Raises `UserError` when the cluster has no room for them."""
    count, gpus = cluster.learner_ranks, cluster.gpus_per_rank
    group = placement_group([{"CPU": cluster.cpus_per_rank, "GPU": float(gpus)}] * count, strategy="PACK")
    ranks: list[Actor] = []
    try:
        if not group.wait(cluster.start_timeout_s):
            raise UserError(
                f"Ray has no room for {count} learner ranks of {cluster.cpus_per_rank:g} CPUs and {gpus} GPUs after "
                f"{cluster.start_timeout_s:.0f} s: it has {ray.cluster_resources()}."
            )
        actor = ray.remote(LearnerRank)
        for rank in range(count):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            options = {"num_cpus": cluster.cpus_per_rank, "num_gpus": gpus, "scheduling_strategy": place}
            ranks.append(actor.options(**options).remote(rank, count, gpus > 0, config.learner.rank_timeout_s))
        lead, *followers = ranks
        address = _outcome(lead.address.remote(), cluster.start_timeout_s)
        following = [follower.follow.remote(address) for follower in followers]
        has_values = _outcome(lead.lead.remote(address, model, tokenizer, config, values), cluster.start_timeout_s)
        yield RemoteLearner(lead, has_values)
        _outcome([lead.close.remote(), *following], cluster.close_timeout_s)
    finally:
        end(ranks)
        remove_placement_group(group)


def _outcome(call: Ref, timeout_s: float | None = None) -> Any:
    try:
        return wait_for(call, timeout_s)
    except Lost as error:
        raise LearnerLost(LEARNER_ENDED) from error
    except TimeoutError as error:
        raise LearnerLost(f"The learner did not answer within {timeout_s:.0f} s. Use --resume.") from error
