"""Fully sharded data parallelism (FSDP2): each rank holds a part of every parameter, gradient and optimizer state.

A decoder layer is gathered for as long as it computes. Every rank takes the same number of forward passes, since each
of them is a series of collectives. The loss is a sum over all ranks' batches, so gradients are summed, not averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import PreTrainedModel

from agent_rl.errors import ConfigError
from agent_rl.learner.batch import PackedBatch
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.layers import decoder_layers
from agent_rl.learner.parts import whole
from agent_rl.types import FloatArray

_TRIES = 4  # token budgets that may deal more evenly, of which the least that needs no further round is taken


class Sharding:
    """The ranks of the default process group, each of which computes on `device`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self._mesh = init_device_mesh(device.type, (self.ranks,))

    def shard(self, model: PreTrainedModel, *, half: bool) -> None:
        """Cut `model` in place. Its values are those that rank 0 has; elsewhere they may be on the meta device.

        `half` gathers the layers in bf16, half the bytes; what a rank keeps, and the sums of gradients, stay as they
        are. Only the decoder can be called afterwards: `whole` gives the weight of the head.
        """
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        embedding = getattr(model.get_input_embeddings(), "base_layer", model.get_input_embeddings())
        tied = embedding.weight
        # What a layer is given stays in fp32 where it is: as in autocast without shards, the residual stream does.
        halved = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for layer in decoder_layers(model):
            self.cut(layer, halved if half else None)
        self.cut(decoder)
        for owner in head.modules() if head is not None else ():
            for name, parameter in list(owner.named_parameters(recurse=False)):
                part = embedding.weight if parameter is tied else self._part(parameter)
                owner.register_parameter(name, part)

    def cut(self, module: torch.nn.Module, precision: MixedPrecisionPolicy | None = None) -> None:
        """Shard what is not yet sharded in `module`, which gathers it while it computes."""
        for owner in module.modules():
            for name, parameter in list(owner.named_parameters(recurse=False)):
                if not isinstance(parameter, DTensor):
                    owner.register_parameter(
                        name, torch.nn.Parameter(self._of_rank_0(parameter), parameter.requires_grad)
                    )
            for name, buffer in list(owner.named_buffers(recurse=False)):
                setattr(owner, name, self._of_rank_0(buffer))
        fully_shard(module, mesh=self._mesh, mp_policy=precision or MixedPrecisionPolicy())
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other

    def share(self, pack: Callable[[int], list[PackedBatch]], token_budget: int) -> list[PackedBatch]:
        """This rank's part of what `pack` makes of a budget: as many batches as any other, of about as many tokens.

        Where there are too few, a rank repeats one of another rank, with weight 0.
        """
        batches = pack(token_budget)
        slots = self.ranks * -(-len(batches) // self.ranks)
        even = -(-sum(map(_tokens, batches)) // slots)
        for budget in range(even, token_budget, max(1, (token_budget - even) // _TRIES)):
            if len(evener := pack(budget)) <= slots:
                batches = evener
                break
        return deal_batches(batches, self.ranks)[self.rank]

    def gather(self, weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """All of each, on the CPU of rank 0; nothing on the other ranks. Holds one at a time on the device."""
        gathered: dict[str, torch.Tensor] = {}
        for name, weight in weights:
            tensor = whole(weight)
            if self.rank == 0:
                gathered[name] = tensor.cpu()
        return gathered

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums of `values` over the ranks, which all have the same names in the same order."""
        sums = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return dict(zip(values, sums.tolist(), strict=True))

    def sum(self, values: FloatArray) -> FloatArray:
        """The sums over the ranks, of arrays of one shape."""
        sums = torch.as_tensor(values, device=self.device)
        dist.all_reduce(sums)
        return sums.cpu().numpy()

    def _part(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        """This rank's part of a parameter that nobody gathers unasked."""
        part = distribute_tensor(self._of_rank_0(parameter), self._mesh, [Shard(0)], src_data_rank=None)
        return torch.nn.Parameter(part, parameter.requires_grad)

    def _of_rank_0(self, tensor: torch.Tensor) -> torch.Tensor:
        """What rank 0 has in the place of `tensor`, on this rank's device."""
        value = torch.empty_like(tensor, device=self.device) if tensor.is_meta else tensor.detach().to(self.device)
        dist.broadcast(value, 0)
        return value


def check_shardable(config: LearnerConfig) -> None:
    """Raises `ConfigError` for what needs the tokens of all ranks at once."""
    if config.lp_reg is not None:
        raise ConfigError("lp_reg compares the tokens of a whole minibatch, of which a rank sees a part: use one rank.")


def deal_batches(batches: list[PackedBatch], ranks: int) -> list[list[PackedBatch]]:
    """Equally many batches for each rank; those of one round, which wait for each other, are about equally long."""
    longest_first = sorted(batches, key=_tokens, reverse=True)
    idle = replace(longest_first[-1], weights_K=np.zeros_like(longest_first[-1].weights_K))
    longest_first += [idle] * (-len(batches) % ranks)
    return [longest_first[rank::ranks] for rank in range(ranks)]


def _tokens(batch: PackedBatch) -> int:
    return len(batch.token_ids_N)
