"""Tensors of which each rank holds a part (DTensors), and how they become whole. Of plain tensors: the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import torch

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_part(tensor: torch.Tensor) -> TypeGuard[DTensor]:
    """Whether other ranks hold the rest of `tensor`."""
    return hasattr(tensor, "device_mesh")  # asks without an import that one process does not need


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of `tensor`: a collective. Its gradient is summed over the ranks."""
    if not is_part(tensor):
        return tensor
    from torch.distributed.tensor import Partial

    return tensor.full_tensor(grad_placements=[Partial()] if tensor.requires_grad else None)


@torch.no_grad()
def copy_into(target: torch.Tensor, source: torch.Tensor) -> None:
    """Overwrite `target`, which may be in parts, with `source`, which is whole or in the same parts."""
    if is_part(target) and not is_part(source):
        from torch.distributed.tensor import distribute_tensor

        on_device = source.to(target.device)
        source = distribute_tensor(on_device, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(source)
