"""The groups of a run one after another, a few in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent_rl.store.journal import Journal
from agent_rl.types import Group

_AT_ONCE = 16


def group_indices(journal: Journal) -> list[int]:
    """The indices of all groups that have an episode, ascending."""
    return sorted({score.group_index for score in journal.scores()})


def read_each(journal: Journal, indices: Sequence[int]) -> Iterator[Group]:
    """The groups of these indices, in this order."""
    for start in range(0, len(indices), _AT_ONCE):
        chunk = indices[start : start + _AT_ONCE]
        loaded = journal.read_groups(chunk)
        yield from (loaded[index] for index in chunk if index in loaded)
