"""Packing: training rows of any length into flat batches without padding, what rows share only once.

Numpy only. Knows rows, and lays out what `agent_rl.learner.tree` planned; refuses to know models and losses. Only what
the loss can see is kept: tokens after the last trained one are not forwarded, and what the loss needs is stored per
trained token. Shapes: N tokens of a batch, B branches, D documents (rows), K trained tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_rl.learner.forest import branch_starts
from agent_rl.learner.tree import MIN_SHARED, Part, plan
from agent_rl.types import FloatArray, IntArray, TrainingRow


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """A forest of branches (see `agent_rl.learner.forest`). Where no rows share a beginning, a branch is a row.

    `lengths_B` sums to N; branch `b` goes on from the flat position `stems_B[b]`, or begins at position 0 (-1).
    The token `targets_K[k]` is predicted at `sources_K[k]`, the flat position of the token before it in its row, which
    rows may share; what else the row says of it stands at `k` too. Its document is `documents_K[k]`, in rising order;
    document `d` is row `rows_D[d]` of those that were packed. `turns_K` numbers the turns of all rows.
    """

    token_ids_N: IntArray
    position_ids_N: IntArray
    lengths_B: IntArray
    stems_B: IntArray
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


def pack(
    rows: Sequence[TrainingRow], token_budget: int, *, bound_trained: bool = True, min_shared: int = MIN_SHARED
) -> list[PackedBatch]:
    """Fill batches of at most `token_budget` tokens to forward, in O(n log n) comparisons of rows.

    `bound_trained` keeps the trained tokens of a batch, which rows do not share, to that number too. Runs of fewer than
    `min_shared` tokens are not shared. A row longer than the budget gets a batch of its own, with all rows that it
    begins with. Rows without a trained token (`weights_T` all 0) vanish.
    Raises `ValueError` when the first token of a row has a weight: nothing precedes it that could predict it.
    """
    if not rows:
        return []
    bounds = np.cumsum([0, *(len(row.weights_T) for row in rows)])
    trained_T = np.concatenate([row.weights_T for row in rows]) != 0  # of all rows: a call per row would cost more
    if trained_T[bounds[:-1][np.diff(bounds) > 0]].any():
        raise ValueError("the first token of a row cannot be trained: set its weight to 0")
    indices_K = np.flatnonzero(trained_T)
    seen = np.searchsorted(indices_K, bounds)
    counts = np.diff(seen)
    # All before the last trained token: nothing else is needed to predict it.
    lengths = np.where(counts > 0, indices_K[seen[1:] - 1] - bounds[:-1], 0).tolist() if indices_K.size else counts
    inputs = [row.token_ids_T[:length] for row, length in zip(rows, lengths, strict=True)]
    parts = plan(inputs, token_budget, counts.tolist() if bound_trained else None, min_shared)
    return [_lay_out([rows[i] for i in part.rows], [inputs[i] for i in part.rows], part) for part in parts]


def _lay_out(rows: Sequence[TrainingRow], inputs: Sequence[IntArray], part: Part) -> PackedBatch:
    lengths_D = np.array([len(ids) for ids in inputs], np.int32)
    begins_D = np.minimum(np.array(part.shared, np.int32), lengths_D)
    new_D = lengths_D - begins_D
    starts_D = branch_starts(new_D)
    owners_D = _owners(begins_D.tolist(), lengths_D.tolist())
    stems_D = np.where(owners_D < 0, -1, starts_D[owners_D] + begins_D - 1 - begins_D[owners_D]).astype(np.int32)
    weights_T = np.concatenate([row.weights_T for row in rows])
    indices_K = np.flatnonzero(weights_T != 0)
    bounds = np.cumsum([0, *(len(row.weights_T) for row in rows)])
    documents_K = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(np.searchsorted(indices_K, bounds)))
    before_K = (indices_K - bounds[documents_K] - 1).astype(np.int32)
    positions_N = np.arange(new_D.sum(), dtype=np.int32) + np.repeat(begins_D - starts_D, new_D)
    return PackedBatch(
        token_ids_N=np.concatenate([ids[begin:] for ids, begin in zip(inputs, begins_D.tolist(), strict=True)]),
        position_ids_N=positions_N,
        lengths_B=new_D[new_D > 0],
        stems_B=stems_D[new_D > 0],
        sources_K=_flat_positions(before_K, documents_K, begins_D, starts_D, owners_D),
        targets_K=np.concatenate([row.token_ids_T for row in rows])[indices_K],
        weights_K=weights_T[indices_K],
        advantages_K=np.concatenate([row.advantages_T for row in rows])[indices_K],
        rollout_logprobs_K=np.concatenate([row.rollout_logprobs_T for row in rows])[indices_K],
        weight_versions_K=np.concatenate([row.weight_versions_T for row in rows])[indices_K],
        returns_K=np.concatenate([_or_zeros(row.returns_T, row) for row in rows])[indices_K].astype(np.float32),
        documents_K=documents_K,
        turns_K=_count_turns(documents_K, np.concatenate([_or_zeros(row.turns_T, row) for row in rows])[indices_K]),
        rows_D=np.array(part.rows, np.int32),
    )


def _or_zeros(values_T: NDArray[Any] | None, row: TrainingRow) -> NDArray[Any]:
    return np.zeros(len(row.token_ids_T), np.int32) if values_T is None else values_T


def _count_turns(documents_K: IntArray, turns_K: IntArray) -> IntArray:
    """Number the turns through the batch: tokens of a turn follow each other, with none of another in between."""
    begins = (np.diff(documents_K) != 0) | (np.diff(turns_K) != 0)
    return np.append(0, np.cumsum(begins)).astype(np.int32)


def _owners(begins: Sequence[int], lengths: Sequence[int]) -> IntArray:
    """For each row an earlier one that holds the last token it shares, or goes on from where it is (-1: none does)."""
    owners: list[int] = []
    path: list[int] = []  # rows of whose own tokens the path so far is made
    for row, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        while path and length > begin <= begins[path[-1]]:
            path.pop()
        owners.append(path[-1] if path else -1)
        if length > begin:
            path.append(row)
    return np.array(owners, np.int32)


def _flat_positions(
    positions_K: IntArray, documents_K: IntArray, begins_D: IntArray, starts_D: IntArray, owners_D: IntArray
) -> IntArray:
    """Where the token at each position of a row stands in the batch: among its own, or those of a row it goes on."""
    rows_K = documents_K.copy()
    shared = np.flatnonzero(positions_K < begins_D[rows_K])
    while shared.size:
        rows_K[shared] = owners_D[rows_K[shared]]
        shared = shared[positions_K[shared] < begins_D[rows_K[shared]]]
    return (starts_D[rows_K] + positions_K - begins_D[rows_K]).astype(np.int32)


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
