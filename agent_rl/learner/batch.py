"""Packing: training rows of any length into flat batches without padding, what rows share only once.

Numpy only. Knows rows, and lays out what `agent_rl.learner.tree` planned; refuses to know models and losses. Only what
the loss can see is kept: tokens after the last trained one are not forwarded, and what the loss needs is stored per
trained token. Shapes: N tokens of a batch, B branches, D documents (rows), K trained tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    trained = [_trained(row) for row in rows]
    # All before the last trained token: nothing else is needed to predict it.
    inputs = [row.token_ids_T[: indices[-1] if indices.size else 0] for row, indices in zip(rows, trained, strict=True)]
    counts = [len(indices) for indices in trained] if bound_trained else None
    return [_lay_out(rows, inputs, trained, part) for part in plan(inputs, token_budget, counts, min_shared)]


def _trained(row: TrainingRow) -> IntArray:
    """The indices of the trained tokens."""
    if row.weights_T[:1].any():
        raise ValueError("the first token of a row cannot be trained: set its weight to 0")
    return np.flatnonzero(row.weights_T != 0).astype(np.int32)


def _lay_out(
    all_rows: Sequence[TrainingRow], all_inputs: Sequence[IntArray], all_trained: Sequence[IntArray], part: Part
) -> PackedBatch:
    rows, inputs = [all_rows[i] for i in part.rows], [all_inputs[i] for i in part.rows]
    trained = [all_trained[i] for i in part.rows]
    lengths_D = np.array([len(ids) for ids in inputs], np.int32)
    begins_D = np.minimum(np.array(part.shared, np.int32), lengths_D)
    new_D = lengths_D - begins_D
    stems, sources = _along_paths(begins_D.tolist(), new_D.tolist(), trained)
    branches = new_D > 0
    lengths_B = new_D[branches]
    shifts_B = begins_D[branches] - branch_starts(lengths_B)
    documents_K = np.repeat(np.arange(len(rows), dtype=np.int32), [len(t) for t in trained])
    return PackedBatch(
        token_ids_N=np.concatenate([ids[begin:] for ids, begin in zip(inputs, part.shared, strict=True)]),
        position_ids_N=np.arange(lengths_B.sum(), dtype=np.int32) + np.repeat(shifts_B, lengths_B),
        lengths_B=lengths_B,
        stems_B=np.array(stems, np.int32)[branches],
        sources_K=np.concatenate(sources),
        targets_K=np.concatenate([row.token_ids_T[t] for row, t in zip(rows, trained, strict=True)]),
        weights_K=np.concatenate([row.weights_T[t] for row, t in zip(rows, trained, strict=True)]),
        advantages_K=np.concatenate([row.advantages_T[t] for row, t in zip(rows, trained, strict=True)]),
        rollout_logprobs_K=np.concatenate([row.rollout_logprobs_T[t] for row, t in zip(rows, trained, strict=True)]),
        weight_versions_K=np.concatenate([row.weight_versions_T[t] for row, t in zip(rows, trained, strict=True)]),
        returns_K=np.concatenate([_returns_of(row, t) for row, t in zip(rows, trained, strict=True)]),
        documents_K=documents_K,
        turns_K=_count_turns(documents_K, [_turns_of(row, t) for row, t in zip(rows, trained, strict=True)]),
        rows_D=np.array(part.rows, np.int32),
    )


def _turns_of(row: TrainingRow, trained: IntArray) -> IntArray:
    return np.zeros(len(trained), np.int32) if row.turns_T is None else row.turns_T[trained]


def _returns_of(row: TrainingRow, trained: IntArray) -> FloatArray:
    return np.zeros(len(trained), np.float32) if row.returns_T is None else row.returns_T[trained]


def _count_turns(documents_K: IntArray, turns: Sequence[IntArray]) -> IntArray:
    """Number the turns through the batch: tokens of a turn follow each other, with none of another in between."""
    turns_K = np.concatenate(turns)
    begins = (np.diff(documents_K) != 0) | (np.diff(turns_K) != 0)
    return np.append(0, np.cumsum(begins)).astype(np.int32)


def _along_paths(
    begins: Sequence[int], new: Sequence[int], trained: Sequence[IntArray]
) -> tuple[list[int], list[IntArray]]:
    """For each row the flat position of the last token it shares (-1: none), and of those before its trained ones."""
    path = np.empty(max(map(sum, zip(begins, new, strict=True))), np.int32)  # of the tokens of the current row
    stems: list[int] = []
    sources: list[IntArray] = []
    start = 0
    for begin, length, indices in zip(begins, new, trained, strict=True):
        stems.append(int(path[begin - 1]) if begin else -1)
        path[begin : begin + length] = np.arange(start, start + length, dtype=np.int32)
        sources.append(path[indices - 1])
        start += length
    return stems, sources


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
