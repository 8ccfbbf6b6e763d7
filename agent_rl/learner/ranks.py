"""A learner on several processes, one for each GPU: rank 0 runs everything else too, the others follow it.

    torchrun --nproc-per-node 2 -m agent_rl.cli train ...

Rank 0 drives: it rolls out, keeps the journal, and has a learner that looks like any other. What is asked of that
learner it tells the other ranks first, and then all do it together. Between two calls it tells them now and then that
it is alive; a rank that hears nothing for too long, or whose connection breaks, ends with one sentence.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from agent_rl.learner.base import LearnerLost
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.sharding import Sharding, check_shardable
from agent_rl.learner.watch import Seen
from agent_rl.types import FloatArray, IntArray, TrainingRow

_TOLD_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_BEATS_PER_TIMEOUT = 4
_LEARNER, _IDLE, _STOP = "learner", "idle", "stop"


class Ranks:
    """What rank 0 has of the other ranks, which are in `follow`. Close it when the last learner is done."""

    def __init__(self, timeout_s: float) -> None:
        with _connected(f"No other rank has joined within {timeout_s:.0f} s."):
            self.local_rank = _join(timeout_s)
        for name in _TOLD_BY_TORCHRUN:  # not meant for the engines and tools that this process starts
            os.environ.pop(name, None)
        self._turn = threading.RLock()
        self._in_call = False
        self._broken = False
        self._closing = threading.Event()
        self._beating = threading.Thread(target=self._beat, args=(timeout_s / _BEATS_PER_TIMEOUT,), daemon=True)
        self._beating.start()

    def learner(self, model: PreTrainedModel, config: LearnerConfig, **options: Any) -> Learner:
        """A learner on all ranks that starts as a copy of `model`, with `Learner`'s options. It replaces the last."""
        return LeadingLearner(self, model, config, **options)

    @contextmanager
    def together(self, name: str, *arguments: Any, **options: Any) -> Generator[None]:
        """The other ranks call the method `name` of their learner while this one runs the block.

        Raises `LearnerLost` when a rank is lost.
        """
        with self._turn:
            if self._in_call:  # of a method that calls another one: so do the other ranks
                yield
                return
            self._in_call = True
            try:
                with _connected("Another rank has ended or fallen silent: its own output says why. Use --resume."):
                    _tell(name, arguments, options)
                    yield
            except BaseException:
                self._broken = True
                raise
            finally:
                self._in_call = False

    def close(self) -> None:
        """Let the other ranks end, if they are still waiting for a call."""
        self._closing.set()
        self._beating.join()
        if not self._broken:
            _tell(_STOP)
        dist.destroy_process_group()

    def _beat(self, interval_s: float) -> None:
        while not self._closing.wait(interval_s):
            with self._turn:
                try:
                    _tell(_IDLE)
                except RuntimeError:  # the next call will say so
                    self._broken = True
                    return


class LeadingLearner(Learner):
    """The learner of rank 0, a copy of `model`. The other ranks do what it is asked to."""

    def __init__(
        self,
        ranks: Ranks,
        model: PreTrainedModel,
        config: LearnerConfig,
        *,
        teacher: PreTrainedModel | None = None,
        **options: Any,
    ) -> None:
        check_shardable(config)
        self._ranks = ranks
        device = torch.device(model.device.type, ranks.local_rank)
        empty_teacher = None if teacher is None else copy_to(teacher, "meta")
        with ranks.together(_LEARNER, device.type, copy_to(model, "meta"), config, empty_teacher, options):
            super().__init__(copy_to(model, "cpu"), config, teacher=teacher, sharding=Sharding(device), **options)

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
        with self._ranks.together("step", rows, groups, version=version, imitated=imitated, seen=seen):
            return super().step(rows, groups, version=version, imitated=imitated, seen=seen)

    def values(self, rows: Sequence[IntArray]) -> list[FloatArray]:
        """See `Learner.values`: every rank computes all of them."""
        with self._ranks.together("values", rows):
            return super().values(rows)

    def logprobs(self, rows: Sequence[TrainingRow]) -> list[FloatArray]:
        """See `Learner.logprobs`: every rank computes all of them."""
        with self._ranks.together("logprobs", rows):
            return super().logprobs(rows)

    def supervised_step(self, rows: Sequence[TrainingRow]) -> dict[str, float]:
        """See `Learner.supervised_step`."""
        with self._ranks.together("supervised_step", rows):
            return super().supervised_step(rows)

    def weights(self) -> dict[str, torch.Tensor]:
        """See `Learner.weights`: here they come on the CPU."""
        with self._ranks.together("weights"):
            return super().weights()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Learner.load_state_dict`."""
        with self._ranks.together("load_state_dict", state):
            super().load_state_dict(state)

    def save(self, folder: Path) -> None:
        """See `Learner.save`: the folder has to be one for all ranks."""
        with self._ranks.together("save", folder):
            super().save(folder)

    def load(self, folder: Path) -> None:
        """See `Learner.load`."""
        with self._ranks.together("load", folder):
            super().load(folder)

    def cool_down(self, optimizer_steps: int) -> None:
        """See `Learner.cool_down`."""
        with self._ranks.together("cool_down", optimizer_steps):
            super().cool_down(optimizer_steps)


def follows() -> bool:
    """Whether torchrun started this process as another rank than 0: then it calls `follow`, and nothing else."""
    return int(os.environ.get("RANK", "0")) > 0


@contextmanager
def lead(timeout_s: float) -> Generator[Ranks | None]:
    """The other ranks, when torchrun started this process as rank 0 of several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    ranks = Ranks(timeout_s)
    try:
        yield ranks
    finally:
        ranks.close()


def follow(timeout_s: float) -> None:
    """Do what rank 0 says until it is done. Raises `UserError` when nothing is heard of it for `timeout_s`."""
    learner: Learner | None = None
    with _connected(f"Rank 0, which runs everything else, has ended or been silent for {timeout_s:.0f} s."):
        local_rank = _join(timeout_s)
        while (said := _hear())[0] != _STOP:
            name, arguments, options = said
            if name == _LEARNER:
                device_type, model, config, teacher, others = arguments
                sharding = Sharding(torch.device(device_type, local_rank))
                learner = Learner(model, config, teacher=teacher, sharding=sharding, **others)
            elif name != _IDLE:
                getattr(learner, name)(*arguments, **options)
        dist.destroy_process_group()


def copy_to(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """A copy of `model` on `device`, without another one where it is; on "meta" a copy without values."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        copied = tensor.detach().to(device, copy=True)
        memo[id(tensor)] = (
            torch.nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else copied
        )
    return copy.deepcopy(model, memo)


def _join(timeout_s: float) -> int:
    """Connect the ranks, and return this one's number among those of its machine."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout_s))
    return local_rank


def _tell(name: str, arguments: Sequence[Any] = (), options: Mapping[str, Any] | None = None) -> None:
    dist.broadcast_object_list([(name, arguments, options or {})], src=0, device=torch.device("cpu"))


def _hear() -> tuple[Any, ...]:
    box: list[Any] = [None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


@contextmanager
def _connected(otherwise: str) -> Generator[None]:
    """Raises `LearnerLost(otherwise)` when the connection to a rank breaks inside, or times out."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise LearnerLost(otherwise) from error
