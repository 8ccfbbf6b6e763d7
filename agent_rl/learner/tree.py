"""Planning: which rows are forwarded together, in which order, and what each shares with the row before it.

Rows that begin with the same tokens form a tree. Numpy and sorting only: rows are compared by whole runs of memory,
never token by token. Knows lengths and budgets; refuses to know what rows are trained on.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from agent_rl.types import IntArray

MIN_SHARED = 16
"""A run of fewer tokens is forwarded once per branch: another branching point would cost more than it saves."""


@dataclass(slots=True)
class Part:
    """Rows that are forwarded together, in depth-first order of their tree, the largest subtree first.

    Row `rows[i]` begins with the first `shared[i]` tokens of the path that the rows before it left, which are not
    forwarded again; it is all there if it is no longer than that.
    """

    rows: list[int] = field(default_factory=list[int])
    shared: list[int] = field(default_factory=list[int])
    tokens: int = 0
    trained: int = 0

    def join(self, other: Part, depth: int) -> None:
        """Take in what branches off at `depth`."""
        self.shared += [depth if self.rows else 0, *other.shared[1:]]
        self.rows += other.rows
        self.tokens += other.tokens
        self.trained += other.trained


@dataclass(slots=True)
class _Node:
    """A place where rows end or part, `depth` tokens from the beginning. `rows` end here or, shorter, on the way."""

    depth: int
    parent: int
    rows: list[int] = field(default_factory=list[int])


def plan(
    sequences: Sequence[IntArray],
    token_budget: int,
    trained: Sequence[int] | None = None,
    min_shared: int = MIN_SHARED,
) -> list[Part]:
    """Parts of at most `token_budget` distinct tokens, and as many trained ones, that hold each row once.

    `trained` counts the trained tokens of each row; without it they are not bounded. A path longer than the budget
    gets a part of its own, with all rows along it. A tree that does not fit is cut between its branches, and each part
    repeats the path to them. Empty rows vanish. The order of the rows does not matter, except among identical ones.
    """
    nodes = _simplified(_trie(sequences), min_shared)
    pending: list[list[Part]] = [[] for _ in nodes]
    for index in sorted(range(len(nodes)), key=lambda i: -nodes[i].depth):  # below before above
        node = nodes[index]
        parts = pending[index]
        parts += [Part([row], [0], 0, trained[row] if trained else 0) for row in node.rows]
        merged = _fill(parts, node.depth, token_budget)
        if node.parent < 0:
            return merged
        for part in merged:
            part.tokens += node.depth - nodes[node.parent].depth
        pending[node.parent] += merged
        pending[index] = []
    return []


def _fill(parts: list[Part], depth: int, token_budget: int) -> list[Part]:
    """Best fit decreasing: join parts that all continue the same `depth` tokens."""
    if len(parts) == 1:
        return parts
    bins: list[Part] = []
    by_space: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for part in sorted(parts, key=lambda part: -part.tokens):
        slot = bisect.bisect_left(by_space, (part.tokens, -1))
        while slot < len(by_space) and bins[by_space[slot][1]].trained + part.trained > token_budget:
            slot += 1
        free, target = by_space.pop(slot) if slot < len(by_space) else (token_budget - depth, len(bins))
        if target == len(bins):
            bins.append(Part())
        bisect.insort(by_space, (max(free - part.tokens, 0), target))
        bins[target].join(part, depth)
    return bins


def _trie(sequences: Sequence[IntArray]) -> list[_Node]:
    """The compressed trie of the rows; node 0 is the empty beginning of all."""
    # Bytes of equal width compare as memory, and whatever order that is, rows with a common prefix are neighbours.
    keys = [np.ascontiguousarray(sequence, np.int32).tobytes() for sequence in sequences]
    order = sorted((i for i in range(len(keys)) if keys[i]), key=keys.__getitem__)
    nodes = [_Node(0, -1)]
    path = [0]
    for row, common in zip(order, _common_prefixes([sequences[i] for i in order]), strict=True):
        below = -1
        while nodes[path[-1]].depth > common:
            below = path.pop()
        if nodes[path[-1]].depth < common:  # the row leaves a run in its middle
            nodes.append(_Node(common, path[-1]))
            nodes[below].parent = len(nodes) - 1
            path.append(len(nodes) - 1)
        if nodes[path[-1]].depth < len(sequences[row]):
            nodes.append(_Node(len(sequences[row]), path[-1]))
            path.append(len(nodes) - 1)
        nodes[path[-1]].rows.append(row)
    return nodes


def _common_prefixes(ordered: Sequence[IntArray]) -> Iterable[int]:
    """Tokens that each row has in common with the one before it."""
    yield from [0] * bool(ordered)
    for before, row in pairwise(ordered):
        length = min(len(before), len(row))
        if before[0] != row[0]:
            yield 0
            continue
        different = before[:length] != row[:length]
        first = int(different.argmax())
        yield first if different[first] else length


def _simplified(nodes: list[_Node], min_shared: int) -> list[_Node]:
    """Without nodes at which nothing branches, and branching earlier where a short run would be shared."""
    children = [0] * len(nodes)
    for node in nodes[1:]:
        children[node.parent] += 1
    dissolved = [False] * len(nodes)
    for index in sorted(range(1, len(nodes)), key=lambda i: nodes[i].depth):  # above before below
        node, above = nodes[index], nodes[nodes[index].parent]
        if dissolved[node.parent]:
            if children[node.parent] == 1:  # its rows end on the way to this node
                node.rows, above.rows = node.rows + above.rows, []
            node.parent = above.parent
        run = node.depth - nodes[node.parent].depth
        dissolved[index] = children[index] == 1 or (children[index] > 1 and run < min_shared)
    return nodes
