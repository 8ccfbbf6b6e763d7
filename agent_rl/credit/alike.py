"""Values compared with those of their own kind: means, deviations, ranks. Knows numbers only.

Every baseline of this library is the mean of some kind: of siblings, of turns in one state, of a role, of a batch.
Shapes: n values, C kinds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agent_rl.credit.estimator import Float64s, Indices

T = TypeVar("T", bound=np.generic)

ROUNDING = 1e-9
"""Rewards are sums of floats: relative differences below this are rounding. Dividing by them would invent a signal."""


class Alike:
    """A partition of values into kinds. `kinds_n` numbers the kind of each; below 0: nothing else is of its kind."""

    def __init__(self, kinds_n: Indices) -> None:
        kinds_n = np.where(kinds_n < 0, -1 - np.arange(len(kinds_n)), kinds_n)
        self._order_n = None if (np.diff(kinds_n) >= 0).all() else np.argsort(kinds_n, kind="stable")
        first_n = np.diff(self._by_kind(kinds_n), prepend=-len(kinds_n) - 1) != 0
        self._starts_C = np.flatnonzero(first_n)
        self._sizes_C = np.diff(self._starts_C, append=len(kinds_n))

    @classmethod
    def all_of(cls, count: int) -> Alike:
        """All `count` values are of one kind."""
        return cls(np.zeros(count, np.int64))

    @classmethod
    def by_key(cls, keys: Iterable[Hashable | None]) -> Alike:
        """Values with equal keys are of one kind; nothing is of the kind of a `None`."""
        numbers: dict[Hashable, int] = {}
        kinds = [-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys]
        return cls(np.array(kinds, np.int64))

    def mean(self, values_n: Float64s) -> Float64s:
        """For each value the mean of its kind."""
        return self._to_each(self._reduced(np.add, self._by_kind(values_n)) / self._sizes_C)

    def max(self, values_n: Float64s) -> Float64s:
        """For each value the largest of its kind."""
        return self._to_each(self._reduced(np.maximum, self._by_kind(values_n)))

    def centered(self, values_n: Float64s) -> Float64s:
        """Each value minus the mean of its kind; exactly 0 where they do not differ."""
        return self._back(self._centered(values_n))

    def leave_one_out(self, values_n: Float64s) -> Float64s:
        """Each value minus the mean of the others of its kind; exactly 0 where they do not differ."""
        factor_C = self._sizes_C / np.maximum(1, self._sizes_C - 1)
        return self._back(self._centered(values_n) * self._repeated(factor_C))

    def deviation(self, values_n: Float64s) -> Float64s:
        """For each value the sample standard deviation of its kind; 0 where they do not differ."""
        return self._to_each(self._deviation(self._centered(values_n)))

    def standardized(self, values_n: Float64s, least: float = 0.0) -> Float64s:
        """(value - mean) / sample standard deviation of its kind, at `least`; exactly 0 where they do not differ."""
        centered_n = self._centered(values_n)
        scale_C = np.maximum(self._deviation(centered_n), least)
        return self._back(centered_n / self._repeated(np.where(scale_C > 0, scale_C, 1.0)))

    def balance(self, values_n: Float64s) -> Float64s:
        """How many of its kind each value beats, less how many beat it. Differences that are rounding count as ties."""
        kinds_n = self._repeated(np.arange(len(self._starts_C)))
        ordered_n = self._by_kind(values_n)
        ascending_n = np.lexsort((ordered_n, kinds_n))
        sorted_n = ordered_n[ascending_n]
        tolerance_n = ROUNDING * self._repeated(self._reduced(np.maximum, np.abs(ordered_n)))
        new_n = (np.diff(sorted_n, prepend=-np.inf) > tolerance_n) | (np.diff(kinds_n, prepend=-1) != 0)
        first_n = np.flatnonzero(new_n)
        ties_n = np.diff(first_n, append=len(sorted_n))
        below_n = np.repeat(first_n, ties_n) - self._repeated(self._starts_C)
        above_n = self._repeated(self._sizes_C) - below_n - np.repeat(ties_n, ties_n)
        balance_n = np.empty(len(sorted_n))
        balance_n[ascending_n] = below_n - above_n
        return self._back(balance_n)

    @property
    def sizes(self) -> Indices:
        """For each value how many are of its kind, itself included."""
        return self._to_each(self._sizes_C)

    def _centered(self, values_n: Float64s) -> Float64s:
        """In the order of kinds."""
        ordered_n = self._by_kind(values_n)
        low_C, high_C = self._reduced(np.minimum, ordered_n), self._reduced(np.maximum, ordered_n)
        differ_C = high_C - low_C > ROUNDING * np.maximum(np.abs(low_C), np.abs(high_C))
        mean_C = self._reduced(np.add, ordered_n) / self._sizes_C
        return np.where(self._repeated(differ_C), ordered_n - self._repeated(mean_C), 0.0)

    def _deviation(self, centered_n: Float64s) -> Float64s:
        return np.sqrt(self._reduced(np.add, centered_n**2) / np.maximum(1, self._sizes_C - 1))

    def _reduced(self, function: np.ufunc, ordered_n: Float64s) -> Float64s:
        return function.reduceat(ordered_n, self._starts_C) if len(ordered_n) else np.zeros(0)

    def _by_kind(self, values_n: NDArray[T]) -> NDArray[T]:
        return values_n if self._order_n is None else values_n[self._order_n]

    def _back(self, ordered_n: NDArray[T]) -> NDArray[T]:
        if self._order_n is None:
            return ordered_n
        values_n = np.empty_like(ordered_n)
        values_n[self._order_n] = ordered_n
        return values_n

    def _repeated(self, values_C: NDArray[T]) -> NDArray[T]:
        if len(values_C) == 1:
            return np.broadcast_to(values_C, self._sizes_C[0])
        return np.repeat(values_C, self._sizes_C)

    def _to_each(self, values_C: NDArray[T]) -> NDArray[T]:
        return self._back(self._repeated(values_C))


def whitened(values_n: Float64s) -> Float64s:
    """All `values_n` with mean 0 and sample standard deviation 1; exactly 0 where they do not differ."""
    return Alike.all_of(len(values_n)).standardized(values_n)
