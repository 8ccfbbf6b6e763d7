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
    spans, counts = _trained_spans(rows)
    # All before the last trained token: nothing else is needed to predict it.
    inputs = [row.token_ids_T[: max(span.stop - 1, 0)] for row, span in zip(rows, spans, strict=True)]
    return [
        _lay_out([rows[i] for i in part.rows], [spans[i] for i in part.rows], part)
        for part in plan(inputs, token_budget, counts.tolist() if bound_trained else None, min_shared)
    ]


def _trained_spans(rows: Sequence[TrainingRow]) -> tuple[list[slice], NDArray[np.intp]]:
    """For each row, where its trained tokens are (from the first to behind the last), and how many."""
    bounds = np.cumsum([0, *(len(row.weights_T) for row in rows)])
    trained = np.concatenate([row.weights_T for row in rows]) != 0  # at once: a call for each row costs more
    if trained[bounds[:-1][np.diff(bounds) > 0]].any():
        raise ValueError("the first token of a row cannot be trained: set its weight to 0")
    indices = np.flatnonzero(trained)
    seen = np.searchsorted(indices, bounds)
    firsts, lasts = (np.append(indices, 0)[at] - bounds[:-1] for at in (seen[:-1], seen[1:] - 1))
    counts = np.diff(seen)
    spans = [
        slice(first, last + 1) if count else slice(0, 0)
        for first, last, count in zip(firsts.tolist(), lasts.tolist(), counts.tolist(), strict=True)
    ]
    return spans, counts


def _lay_out(rows: Sequence[TrainingRow], spans: Sequence[slice], part: Part) -> PackedBatch:
    lengths_D = np.array([span.stop - 1 for span in spans], np.int32)
    begins_D = np.minimum(np.array(part.shared, np.int32), lengths_D)
    new_D = lengths_D - begins_D
    starts_D = branch_starts(new_D)
    owners_D = _owners(begins_D.tolist(), lengths_D.tolist())
    stems_D = np.where(owners_D < 0, -1, starts_D[owners_D] + begins_D - 1 - begins_D[owners_D]).astype(np.int32)
    spanned = list(zip(rows, spans, strict=True))
    weights = np.concatenate([row.weights_T[span] for row, span in spanned])
    indices_K = np.flatnonzero(weights != 0)
    bounds = np.cumsum([0, *(span.stop - span.start for span in spans)])
    counts_D = np.diff(np.searchsorted(indices_K, bounds))
    before_D = np.array([span.start - 1 for span in spans]) - bounds[:-1]
    sources_K = _flat_positions(indices_K + np.repeat(before_D, counts_D), counts_D, begins_D, starts_D, owners_D)
    documents_K = np.repeat(np.arange(len(rows), dtype=np.int32), counts_D)
    own = zip(rows, begins_D.tolist(), lengths_D.tolist(), strict=True)
    return PackedBatch(
        token_ids_N=np.concatenate([row.token_ids_T[begin:length] for row, begin, length in own]),
        position_ids_N=np.arange(new_D.sum(), dtype=np.int32) + np.repeat(begins_D - starts_D, new_D),
        lengths_B=new_D[new_D > 0],
        stems_B=stems_D[new_D > 0],
        sources_K=sources_K.astype(np.int32),
        targets_K=np.concatenate([row.token_ids_T[span] for row, span in spanned])[indices_K],
        weights_K=weights[indices_K],
        advantages_K=np.concatenate([row.advantages_T[span] for row, span in spanned])[indices_K],
        rollout_logprobs_K=np.concatenate([row.rollout_logprobs_T[span] for row, span in spanned])[indices_K],
        weight_versions_K=np.concatenate([row.weight_versions_T[span] for row, span in spanned])[indices_K],
        returns_K=np.concatenate([_or_zeros(row.returns_T, span) for row, span in spanned])[indices_K].astype(
            np.float32
        ),
        documents_K=documents_K,
        turns_K=_count_turns(
            documents_K, np.concatenate([_or_zeros(row.turns_T, span) for row, span in spanned])[indices_K]
        ),
        rows_D=np.array(part.rows, np.int32),
    )


def _or_zeros(values_T: NDArray[Any] | None, span: slice) -> NDArray[Any]:
    return np.zeros(span.stop - span.start, np.int32) if values_T is None else values_T[span]


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
    positions_K: NDArray[np.intp],
    counts_D: NDArray[np.intp],
    begins_D: IntArray,
    starts_D: IntArray,
    owners_D: IntArray,
) -> NDArray[np.intp]:
    """Where the token at each position of a row stands in the batch: among its own, or those of a row it goes on."""
    flat_K = positions_K + np.repeat(starts_D - begins_D, counts_D)
    shared = np.flatnonzero(positions_K < np.repeat(begins_D, counts_D))
    rows = np.repeat(np.arange(len(begins_D)), counts_D)[shared]
    while shared.size:
        rows = owners_D[rows]
        flat_K[shared] = positions_K[shared] + starts_D[rows] - begins_D[rows]
        higher = positions_K[shared] < begins_D[rows]
        shared, rows = shared[higher], rows[higher]
    return flat_K


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
