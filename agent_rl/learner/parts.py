"""Tensors of which each rank holds a part (DTensors), and how they become whole. Of plain tensors: the identity."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, Partial, distribute_tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of `tensor`: a collective. Its gradient is summed over the ranks."""
    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.full_tensor(grad_placements=[Partial()] if tensor.requires_grad else None)


@torch.no_grad()
def copy_into(target: torch.Tensor, source: torch.Tensor) -> None:
    """Overwrite `target`, which may be in parts, with `source`, which is whole or in the same parts."""
    if isinstance(target, DTensor) and not isinstance(source, DTensor):
        on_device = source.to(target.device)
        source = distribute_tensor(on_device, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(source)
