"""Packing: training rows of any length into flat batches without padding.

Numpy only. Knows token budgets and document boundaries; refuses to know models and losses. Only what the loss can see
is kept: tokens after the last trained one are not forwarded, and what the loss needs is stored per trained token.
Shapes: N tokens of a batch, D documents (rows), K trained tokens.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_rl.types import FloatArray, IntArray, TrainingRow


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """Documents laid end to end, longest first.

    The token `targets_K[k]` is predicted at `sources_K[k]`, the flat position of the token before it in the same
    document, whose number is `documents_K[k]`; its weight, advantage, rollout log-prob and weight version stand at `k`
    too. `turns_K` numbers the turns of the batch.
    `lengths_D` sums to N. Document `d` is row `rows_D[d]` of those that were packed.
    """

    token_ids_N: IntArray
    position_ids_N: IntArray
    lengths_D: IntArray
    sources_K: IntArray
    targets_K: IntArray
    weights_K: FloatArray
    advantages_K: FloatArray
    rollout_logprobs_K: FloatArray
    weight_versions_K: IntArray
    returns_K: FloatArray
    documents_K: IntArray
    turns_K: IntArray
    rows_D: IntArray


def pack(rows: Sequence[TrainingRow], token_budget: int) -> list[PackedBatch]:
    """Fill batches of at most `token_budget` tokens, best fit decreasing, in O(n log n) comparisons.

    A row longer than the budget gets a batch of its own. Rows without a trained token (`weights_T` all 0) vanish.
    Raises `ValueError` when the first token of a row has a weight: nothing precedes it that could predict it.
    """
    lengths = [_input_length(row) for row in rows]
    longest_first = sorted((i for i in range(len(rows)) if lengths[i]), key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for i in longest_first:
        slot = bisect.bisect_left(open_bins, (lengths[i], -1))
        free, target = open_bins.pop(slot) if slot < len(open_bins) else (token_budget, len(bins))
        if target == len(bins):
            bins.append([])
        bins[target].append(i)
        if free > lengths[i]:
            bisect.insort(open_bins, (free - lengths[i], target))
    return [_concatenate(rows, lengths, members) for members in bins]


def _input_length(row: TrainingRow) -> int:
    """Tokens to forward: all before the last trained one (0 when none is trained)."""
    if row.weights_T[:1].any():
        raise ValueError("the first token of a row cannot be trained: set its weight to 0")
    trained = np.flatnonzero(row.weights_T)
    return int(trained[-1]) if trained.size else 0


def _concatenate(all_rows: Sequence[TrainingRow], lengths: Sequence[int], members: Sequence[int]) -> PackedBatch:
    rows = [all_rows[i] for i in members]
    lengths_D = np.array([lengths[i] for i in members], dtype=np.int32)
    starts_D = np.cumsum(lengths_D) - lengths_D
    trained = [np.flatnonzero(row.weights_T) for row in rows]
    counts_D = [len(indices) for indices in trained]
    documents_K = np.repeat(np.arange(len(rows), dtype=np.int32), counts_D)
    return PackedBatch(
        token_ids_N=np.concatenate([row.token_ids_T[:length] for row, length in zip(rows, lengths_D, strict=True)]),
        position_ids_N=np.arange(lengths_D.sum(), dtype=np.int32) - np.repeat(starts_D, lengths_D).astype(np.int32),
        lengths_D=lengths_D,
        sources_K=(np.concatenate(trained) - 1 + np.repeat(starts_D, counts_D)).astype(np.int32),
        targets_K=np.concatenate([row.token_ids_T[t] for row, t in zip(rows, trained, strict=True)]),
        weights_K=np.concatenate([row.weights_T[t] for row, t in zip(rows, trained, strict=True)]),
        advantages_K=np.concatenate([row.advantages_T[t] for row, t in zip(rows, trained, strict=True)]),
        rollout_logprobs_K=np.concatenate([row.rollout_logprobs_T[t] for row, t in zip(rows, trained, strict=True)]),
        weight_versions_K=np.concatenate([row.weight_versions_T[t] for row, t in zip(rows, trained, strict=True)]),
        returns_K=np.concatenate([_returns_of(row, t) for row, t in zip(rows, trained, strict=True)]),
        documents_K=documents_K,
        turns_K=_count_turns(documents_K, [_turns_of(row, t) for row, t in zip(rows, trained, strict=True)]),
        rows_D=np.array(members, dtype=np.int32),
    )


def _turns_of(row: TrainingRow, trained: NDArray[np.intp]) -> IntArray:
    return np.zeros(len(trained), np.int32) if row.turns_T is None else row.turns_T[trained]


def _returns_of(row: TrainingRow, trained: NDArray[np.intp]) -> FloatArray:
    return np.zeros(len(trained), np.float32) if row.returns_T is None else row.returns_T[trained]


def _count_turns(documents_K: IntArray, turns: Sequence[IntArray]) -> IntArray:
    """Number the turns through the batch: tokens of a turn follow each other, with none of another in between."""
    turns_K = np.concatenate(turns)
    begins = (np.diff(documents_K) != 0) | (np.diff(turns_K) != 0)
    return np.append(0, np.cumsum(begins)).astype(np.int32)


def deal(
    rows: Sequence[TrainingRow], groups: Sequence[int], parts: int, rng: np.random.Generator
) -> list[list[TrainingRow]]:
    """Deal the rows in at most `parts` parts with equally many groups, in an order drawn from `rng`.

    `groups` numbers the group of each row; no part cuts one.
    """
    members: defaultdict[int, list[TrainingRow]] = defaultdict(list)
    for row, group in zip(rows, groups, strict=True):
        members[group].append(row)
    order = rng.permutation(sorted(members))
    dealt = np.array_split(order, min(parts, max(1, len(order))))
    return [[row for group in part for row in members[int(group)]] for part in dealt]
