"""Sequences: parts, neighbours, repetitions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)


def chunks(items: Sequence[T], size: int) -> list[list[T]]:
    """Parts of `size` items; the last may be shorter."""
    if size < 1:
        raise ValueError("the size must be positive")
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def windows(items: Sequence[T], size: int, step: int = 1) -> list[tuple[T, ...]]:
    """All runs of `size` neighbours, every `step` items."""
    if size < 1 or step < 1:
        raise ValueError("size and step must be positive")
    return [tuple(items[start : start + size]) for start in range(0, len(items) - size + 1, step)]


def unique(items: Iterable[H], key: Callable[[H], Hashable] | None = None) -> list[H]:
    """Each item once, where it came first."""
    seen: set[Hashable] = set()
    kept: list[H] = []
    for item in items:
        mark = item if key is None else key(item)
        if mark in seen:
            continue
        seen.add(mark)
        kept.append(item)
    return kept


def flatten(items: Iterable[Any], depth: int = -1) -> list[Any]:
    """The items of lists in lists, down to `depth`; a negative one has no end."""
    flat: list[Any] = []
    for item in items:
        if isinstance(item, list | tuple) and depth != 0:
            flat.extend(flatten(item, depth - 1))
        else:
            flat.append(item)
    return flat


def rotate(items: Sequence[T], count: int) -> list[T]:
    """The items with the first `count` moved to the end."""
    if not items:
        return []
    count %= len(items)
    return [*items[count:], *items[:count]]


def partition(items: Iterable[T], test: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """Those that pass the test, and those that do not."""
    passed: list[T] = []
    failed: list[T] = []
    for item in items:
        if test(item):
            passed.append(item)
        else:
            failed.append(item)
    return passed, failed


def run_lengths(items: Iterable[T]) -> list[tuple[T, int]]:
    """Each run of equal neighbours as the item and how often it is repeated."""
    runs: list[tuple[T, int]] = []
    for item in items:
        if runs and runs[-1][0] == item:
            runs[-1] = (item, runs[-1][1] + 1)
        else:
            runs.append((item, 1))
    return runs


def insertion_point(ordered: Sequence[float], value: float) -> int:
    """Where a value belongs in a sorted sequence, before those that are equal."""
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


def merge_sorted(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Two sorted sequences as one."""
    merged: list[float] = []
    left = right = 0
    while left < len(first) and right < len(second):
        if first[left] <= second[right]:
            merged.append(first[left])
            left += 1
        else:
            merged.append(second[right])
            right += 1
    return [*merged, *first[left:], *second[right:]]


def group_by(items: Iterable[T], key: Callable[[T], Hashable]) -> dict[Hashable, list[T]]:
    """Items by their key, in order."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def longest_increasing(values: Sequence[int]) -> list[int]:
    """A longest run of neighbours each of which is larger than the one before."""
    best: list[int] = []
    run: list[int] = []
    for value in values:
        if run and value <= run[-1]:
            run = []
        run.append(value)
        if len(run) > len(best):
            best = list(run)
    return best
