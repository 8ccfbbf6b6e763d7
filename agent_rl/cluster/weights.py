"""New weights from the learner to engines: what changed, where the receiver has what that starts from, else all.

An update is an array of bytes, which Ray keeps in shared memory: it crosses the network once for each node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_codes
from safetensors.torch import load, save

from agent_rl.engine.delta.chain import name_after
from agent_rl.engine.delta.coding import apply
from agent_rl.engine.delta.encoder import Encoder, bits

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """Weights called `name`: all of them, or what turns those before into them."""

    name: str
    data: NDArray[np.uint8]
    complete: bool


class Sender:
    """The learner's side. `dtype` is that of the engines."""

    def __init__(self, dtype: str) -> None:
        self._encoder = Encoder(dtype)

    def advance(self, weights: Mapping[str, torch.Tensor]) -> Update | None:
        """Take over `weights`: the difference to the former ones, or none if these were others altogether."""
        delta = self._encoder.advance(weights)
        return None if delta is None else Update(delta.name, np.frombuffer(delta.data, np.uint8), complete=False)

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return sum(tensor.nbytes for tensor in self._encoder.weights.values())

    def complete(self) -> Update:
        """All of the weights."""
        weights = {name: tensor.clone() for name, tensor in self._encoder.weights.items()}  # tied ones have one storage
        return Update(self._encoder.name, np.frombuffer(save(weights), np.uint8), complete=True)


class Receiver:
    """An engine's side: a copy of the weights on the CPU, which updates are applied to."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._weights: dict[str, torch.Tensor] = {}

    def take(self, update: Update) -> dict[str, torch.Tensor] | None:
        """The tensors that changed, or none if the update starts from other weights than these: then send all."""
        if update.complete:
            self._weights, self._name = load(update.data.tobytes()), update.name
            return self._weights
        data = update.data.tobytes()
        if self._name is None or name_after(self._name, data) != update.name:
            return None
        self._name = None  # until all of it is applied
        codes = load_codes(data)
        for name, code in codes.items():
            apply(code.data, bits(self._weights[name]))
        self._name = update.name
        return {name: self._weights[name] for name in codes}
