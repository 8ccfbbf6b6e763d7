"""Causal attention inside each branch of a packed batch, one dense call for all branches of nearly equal length.

A block mask over the packed row costs O(N^2) and hides the causal structure from fast kernels. Padding a branch on the
right is exact instead: under a causal mask no real query sees a later key, and what the padded queries compute is
thrown away. Where no row shares a beginning with another, branches are documents, and this is all the attention there
is, on any device. Shapes: N tokens, H heads, d head size, B branches, L the length of a bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from agent_rl.learner.forest import branch_starts
from agent_rl.types import IntArray

LENGTH_SLACK = 32
"""Branches whose lengths differ by less than this share a call."""


F = TypeVar("F", bound=Callable[..., object])


def untraced(attend: F) -> F:
    """`attend`, kept out of compiled layers: what it does differs from batch to batch, each would be compiled anew."""
    return torch.compiler.disable(attend)  # pyright: ignore[reportReturnType]  # typed as a decorator only


@dataclass(frozen=True, slots=True)
class Bucket:
    """Some branches, seen as `branches` rows of `length` tokens.

    `gather` reads that padded layout from the batch and `padded_BL` marks what is not there. Both are None where the
    branches have one length and stand side by side from `start` on.
    """

    start: int
    branches: int
    length: int
    gather: torch.Tensor | None
    padded_BL: torch.Tensor | None

    def read(self, states_NHd: torch.Tensor) -> torch.Tensor:
        """Its branches as (branches, H, length, d)."""
        if self.gather is None:
            rows = states_NHd[self.start : self.start + self.branches * self.length]
        else:
            rows = states_NHd.index_select(0, self.gather)
        return rows.unflatten(0, (self.branches, self.length)).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Branches:
    """All buckets of a batch. `order_N` finds each token in the padded rows laid end to end; None: as they are."""

    buckets: list[Bucket]
    order_N: torch.Tensor | None

    def write(self, padded: Sequence[torch.Tensor]) -> torch.Tensor:
        """(N, H, ...) of one (branches, H, length, ...) for each bucket."""
        rows = torch.cat([states.transpose(1, 2).flatten(0, 1) for states in padded])
        return rows if self.order_N is None else rows.index_select(0, self.order_N)

    @untraced
    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        """`query` is (1, H, N, d), `key` and `value` (1, H / group, N, d); returns (1, N, H, d)."""
        query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
        outputs = [
            scaled_dot_product_attention(
                bucket.read(query),
                bucket.read(key),
                bucket.read(value),
                is_causal=True,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
            for bucket in self.buckets
        ]
        return self.write(outputs).unsqueeze(0)


def make_branches(lengths_B: IntArray, device: torch.device) -> Branches:
    """Bucket the branches of a batch by nearly equal length."""
    starts_B = branch_starts(lengths_B)
    longest_first = np.argsort(-lengths_B, kind="stable")
    sorted_lengths = lengths_B[longest_first]
    buckets: list[Bucket] = []
    order_N = np.empty(lengths_B.sum(), np.int64)
    first, width = 0, 0
    while first < len(lengths_B):
        close = sorted_lengths > sorted_lengths[first] - LENGTH_SLACK
        stop = int(close.sum())
        members = np.sort(longest_first[first:stop])
        positions_BL, real_BL = _padded(starts_B[members], lengths_B[members])
        order_N[positions_BL[real_BL]] = width + np.flatnonzero(real_BL)
        buckets.append(_bucket(positions_BL, real_BL, device))
        first, width = stop, width + real_BL.size
    in_order = width == len(order_N) and bool((np.diff(order_N) == 1).all())
    return Branches(buckets, None if in_order else torch.from_numpy(order_N).to(device))


def _padded(starts_B: IntArray, lengths_B: IntArray) -> tuple[IntArray, Any]:
    """Flat positions of a bucket as a rectangle, the first token of a branch standing in for what is not there."""
    offsets_L = np.arange(lengths_B.max(), dtype=np.int32)
    real_BL = offsets_L < lengths_B[:, None]
    return np.where(real_BL, starts_B[:, None] + offsets_L, starts_B[:, None]), real_BL


def _bucket(positions_BL: IntArray, real_BL: Any, device: torch.device) -> Bucket:
    (branches, length), start = positions_BL.shape, int(positions_BL[0, 0])
    if real_BL.all() and bool((np.diff(positions_BL.ravel()) == 1).all()):
        return Bucket(start, branches, length, None, None)
    gather = torch.from_numpy(positions_BL.ravel().astype(np.int64)).to(device)
    return Bucket(start, branches, length, gather, torch.from_numpy(~real_BL).to(device))
