"""The key/value store: one row per resident session, in tensors that unmodified transformers models can use.

Knows rows, columns (positions) and layers. Knows nothing of sessions, requests or token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


class _Layer(CacheLayerMixin):
    """Keys and values of one attention layer: [rows, kv_heads, capacity + 1, head_dim].

    The last column takes the writes of padding and is never read.
    """

    keys: torch.Tensor | None
    values: torch.Tensor | None

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = self._empty(key_states)
        self.values = self._empty(value_states)
        self.is_initialized = True

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        # Zeros, not uninitialised memory: a masked value is multiplied by 0, and 0 * NaN is NaN.
        return like.new_zeros(self.cache.rows, like.shape[1], self.cache.capacity + 1, like.shape[3])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [batch, kv_heads, new, head_dim] at the cache's window and return all that the window's rows see."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            assert self.keys is not None
            assert self.values is not None
        window = self.cache.window
        rows = slice(window.first, window.first + key_states.shape[0])
        keys, values = self.keys[rows], self.values[rows]
        keys.transpose(1, 2)[window.index] = key_states.transpose(1, 2)
        values.transpose(1, 2)[window.index] = value_states.transpose(1, 2)
        return keys[:, :, : window.width], values[:, :, : window.width]

    def tensors(self) -> list[torch.Tensor]:
        return [tensor for tensor in (self.keys, self.values) if tensor is not None]

    def grow(self) -> None:
        if self.keys is not None and self.values is not None:
            old = self.keys, self.values
            self.keys, self.values = self._empty(self.keys), self._empty(self.values)
            for source, target in zip(old, (self.keys, self.values), strict=True):
                target[:, :, : source.shape[2] - 1] = source[:, :, :-1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.window.width, 0

    def get_seq_length(self) -> int:
        return self.cache.window.width

    def get_max_length(self) -> int:
        return self.cache.capacity


class _Window:
    """Where the next forward reads and writes: rows from `first`, columns `columns_BS` (-1 for padding)."""

    def __init__(self, first: int, columns_BS: torch.Tensor, width: int) -> None:
        self.first = first
        self.width = width
        batch = torch.arange(columns_BS.shape[0], device=columns_BS.device)
        self.index = (batch[:, None], columns_BS)


class SlotCache(Cache):
    """`rows` rows of `capacity` tokens. Call `aim` before each forward of the model."""

    layers: list[_Layer]
    window: _Window

    def __init__(self, layers: int, rows: int, capacity: int) -> None:
        self.rows = rows
        self.capacity = capacity
        super().__init__(layers=[_Layer(self) for _ in range(layers)])

    def aim(self, first: int, columns_BS: torch.Tensor, width: int) -> None:
        """The next forward is of rows `first, first + 1, ...`; it writes `columns_BS` and sees columns `[0, width)`."""
        self.window = _Window(first, columns_BS, width)

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` tokens in each row; what is stored stays."""
        self.capacity = capacity
        for layer in self.layers:
            layer.grow()

    def clear(self) -> None:
        """Give the memory back; it is allocated again when something is written."""
        for layer in self.layers:
            layer.keys = layer.values = None

    def move(self, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        """Rows `sources` become rows `targets`, all at once, up to column `width`."""
        for layer in self.layers:
            for tensor in layer.tensors():
                used = tensor[:, :, :width]
                rows = torch.tensor([sources, targets], device=tensor.device)
                used.index_copy_(0, rows[1], used.index_select(0, rows[0]))

    def copy(self, source: int, target: int, width: int) -> None:
        """The first `width` columns of row `source` are copied to row `target`."""
        for layer in self.layers:
            for tensor in layer.tensors():
                tensor[target, :, :width] = tensor[source, :, :width]
