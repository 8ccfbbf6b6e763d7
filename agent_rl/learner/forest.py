"""The geometry of a packed batch: who sees whom in a forest of branches. Numpy only; knows no rows and no model.

A batch is a forest in depth-first order. A branch is a run of consecutive tokens that goes on from a token of an
earlier branch, its stem, or begins a tree (stem -1). The descendants of a token then stand right behind it, so one
number per token says who sees it: token j is visible to token i if and only if j <= i < ends_N[j].
Shapes: N tokens, B branches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agent_rl.types import IntArray


class Rectangle(NamedTuple):
    """All tokens `query_start:query_stop` see all of `key_start:key_stop`, the beginning of an earlier branch."""

    query_start: int
    query_stop: int
    key_start: int
    key_stop: int


def branch_starts(lengths_B: IntArray) -> IntArray:
    """The flat position at which each branch begins."""
    return (np.cumsum(lengths_B) - lengths_B).astype(np.int32)


def subtree_ends(lengths_B: IntArray, stems_B: IntArray) -> IntArray:
    """`ends_N`: behind the last token that sees each token."""
    starts_B = branch_starts(lengths_B)
    stops_B = starts_B + lengths_B
    ends_N = np.repeat(stops_B, lengths_B).astype(np.int32)
    for start, stop, stem in zip(starts_B[::-1].tolist(), stops_B[::-1].tolist(), stems_B[::-1].tolist(), strict=True):
        # What grows from this branch has been seen; whoever sees a token sees all tokens before it in the branch.
        ends_N[start:stop] = np.maximum.accumulate(ends_N[start:stop][::-1])[::-1]
        if stem >= 0:
            ends_N[stem] = max(ends_N[stem], ends_N[start])
    return ends_N


def rectangles(lengths_B: IntArray, stems_B: IntArray) -> list[Rectangle]:
    """What tokens see beside their own branch, every pair once: one rectangle for each token that is a stem."""
    starts_B, ends_N = branch_starts(lengths_B), subtree_ends(lengths_B, stems_B)
    stems, first_branches = np.unique(stems_B, return_index=True)
    first_branches, stems = first_branches[stems >= 0], stems[stems >= 0]
    owners = np.searchsorted(starts_B, stems, side="right") - 1
    bounds = (starts_B[first_branches], ends_N[stems], starts_B[owners], stems + 1)
    return [Rectangle(*map(int, sides)) for sides in zip(*bounds, strict=True)]
