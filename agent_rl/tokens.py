"""The growing token row of one episode: context and sampled tokens, side by side with what the sampler recorded.

Knows nothing of text, templates or tokenizers. Sampled ids enter verbatim and are never touched again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_rl.types import Generation, IntArray, Segment


class TokenBuffer:
    """Append-only row of tokens; appending costs amortised O(new tokens), reading `ids_T` costs O(1)."""

    __slots__ = ("_ids", "_length", "_logprobs", "_mask", "_versions")

    def __init__(self, context_ids: Sequence[int] | IntArray = ()) -> None:
        capacity = max(64, 2 * len(context_ids))
        self._length = 0
        self._ids = np.zeros(capacity, np.int32)
        self._mask = np.zeros(capacity, np.bool_)
        self._logprobs = np.zeros(capacity, np.float32)
        self._versions = np.full(capacity, -1, np.int32)
        self.append_context(context_ids)

    def __len__(self) -> int:
        return self._length

    @property
    def ids_T(self) -> IntArray:
        """Read-only view of all ids so far; it keeps its length and content when more is appended."""
        view = self._ids[: self._length]
        view.flags.writeable = False
        return view

    def append_context(self, ids: Sequence[int] | IntArray) -> None:
        """Append tokens that were not sampled: mask false, log-prob 0, version -1."""
        start, end = self._extend(len(ids))
        self._ids[start:end] = ids

    def append_response(self, generation: Generation) -> tuple[int, int]:
        """Append sampled tokens as they are and return their span. Raises `ValueError` when lengths disagree."""
        count = len(generation.token_ids_R)
        if len(generation.logprobs_R) != count or len(generation.weight_versions_R) != count:
            raise ValueError("a generation needs one log-prob and one weight version per token")
        start, end = self._extend(count)
        self._ids[start:end] = generation.token_ids_R
        self._mask[start:end] = True
        self._logprobs[start:end] = generation.logprobs_R
        self._versions[start:end] = generation.weight_versions_R
        return start, end

    def segment(self) -> Segment:
        """A read-only copy of the row; later appends do not change it."""
        rows = (self._ids, self._mask, self._logprobs, self._versions)
        return Segment(*(_frozen_copy(row[: self._length]) for row in rows))

    def _extend(self, count: int) -> tuple[int, int]:
        start, end = self._length, self._length + count
        if end > len(self._ids):
            capacity = max(2 * len(self._ids), end)
            self._ids = _grown(self._ids, capacity, 0)
            self._mask = _grown(self._mask, capacity, False)
            self._logprobs = _grown(self._logprobs, capacity, 0.0)
            self._versions = _grown(self._versions, capacity, -1)
        self._length = end
        return start, end


def _grown(row: NDArray[Any], capacity: int, fill: float) -> NDArray[Any]:
    grown = np.full(capacity, fill, row.dtype)
    grown[: len(row)] = row
    return grown


def _frozen_copy(row: NDArray[Any]) -> NDArray[Any]:
    copy = row.copy()
    copy.flags.writeable = False
    return copy
