"""Attention in a forest on a GPU: FlexAttention with a block mask that is derived, not evaluated.

Which blocks of the N x N mask are empty, full or mixed follows from one minimum and one maximum per block of
`forest.subtree_ends`, in O((N / block)^2). It is made once per batch, for all layers. Shapes: N tokens, M blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from agent_rl.types import IntArray

BLOCK = 128
"""Tokens on each side of a block, the default of FlexAttention's kernels."""


@dataclass(frozen=True, slots=True)
class FlexForest:
    """A batch in which branches grow from others."""

    mask: BlockMask

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        """`query` is (1, H, N, d), `key` and `value` (1, H / group, N, d); returns (1, N, H, d)."""
        device = query.device.type
        if torch.is_autocast_enabled(device):  # which knows the public function of dense attention only
            query, key, value = (states.to(torch.get_autocast_dtype(device)) for states in (query, key, value))
        # The kernels are compiled code; where they do not exist, the eager form is exact, slow and has no backward.
        attend: Any = _compiled() if device == "cuda" else flex_attention
        grouped = query.shape[1] != key.shape[1]
        states = [states.contiguous() for states in (query, key, value)]
        return attend(*states, block_mask=self.mask, scale=scaling, enable_gqa=grouped).transpose(1, 2)


@cache
def _compiled() -> Any:
    # Every batch has another length: one kernel for all of them.
    return torch.compile(flex_attention, dynamic=True)


def make_flex_forest(ends_N: IntArray, device: torch.device) -> FlexForest:
    """The mask in which token i sees token j if and only if j <= i < ends_N[j]."""
    ends = torch.from_numpy(ends_N.astype(np.int32)).to(device)

    def visible(_batch: torch.Tensor, _head: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return (j <= i) & (i < ends[j])

    mixed_MM, full_MM = (torch.from_numpy(blocks).to(device) for blocks in visible_blocks(ends_N))
    counts_and_indices = (part for blocks in (mixed_MM, full_MM) for part in _as_lists(blocks))
    mask = BlockMask.from_kv_blocks(
        *counts_and_indices, BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(len(ends_N), len(ends_N))
    )
    return FlexForest(mask)


def visible_blocks(ends_N: IntArray) -> tuple[Any, Any]:
    """For each block of queries and of keys whether some, and whether all, of its queries see some and all keys."""
    length = len(ends_N)
    first_M = np.arange(0, length, BLOCK)
    last_M = np.minimum(first_M + BLOCK, length) - 1
    least_M, most_M = np.minimum.reduceat(ends_N, first_M), np.maximum.reduceat(ends_N, first_M)
    below = first_M[:, None] > first_M[None, :]
    some_MM = below & (first_M[:, None] < most_M[None, :]) | np.eye(len(first_M), dtype=np.bool_)
    # The last block of queries may be cut short: it stays mixed, for what reads it past the end of the batch.
    whole_M = last_M - first_M + 1 == BLOCK
    full_MM = below & (last_M[:, None] < least_M[None, :]) & whole_M[:, None]
    return some_MM & ~full_MM, full_MM


def _as_lists(blocks_MM: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each block of queries, how many blocks of keys there are, and which: those first, in order."""
    counts_M = blocks_MM.sum(1, dtype=torch.int32)
    indices_MM = blocks_MM.to(torch.int8).argsort(dim=1, descending=True, stable=True).to(torch.int32)
    return counts_M[None, None], indices_MM[None, None]
