"""The sender's side: the weights that receivers have, and what turns them into the next ones."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import numpy as np
import torch
from safetensors.numpy import save

from agent_rl.engine.delta.chain import Delta, name_after
from agent_rl.engine.delta.coding import Bits, encode

_UNSIGNED = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}


class Encoder:
    """Keeps a copy of the weights in the torch dtype called `dtype`, that of the engine: what rounds to the same has
    not changed. Without the name of one, each tensor keeps its own.
    """

    def __init__(self, dtype: str = "") -> None:
        found = getattr(torch, dtype, None)
        self._dtype = found if isinstance(found, torch.dtype) and found.is_floating_point else None
        self.weights: dict[str, torch.Tensor] = {}
        self.name = ""

    def advance(self, weights: Mapping[str, torch.Tensor]) -> Delta | None:
        """Take over `weights`; the difference to the former ones, or none when these had other tensors."""
        new = {name: self._copy(tensor) for name, tensor in weights.items()}
        old, self.weights = self.weights, new
        if _layout(old) != _layout(new):
            self.name = uuid.uuid4().hex
            return None
        codes = {name: encode(bits(old[name]), bits(tensor)) for name, tensor in new.items()}
        data = save({name: np.frombuffer(code, np.uint8) for name, code in codes.items() if code is not None})
        delta = Delta(name_after(self.name, data), data)
        self.name = delta.name
        return delta

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._dtype if self._dtype is not None and tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to("cpu", dtype, copy=True).contiguous()


def _layout(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


def bits(tensor: torch.Tensor) -> Bits:
    """A flat view of a tensor on the CPU, as integers of the same size."""
    return tensor.view(_UNSIGNED[tensor.element_size()]).numpy().reshape(-1)
