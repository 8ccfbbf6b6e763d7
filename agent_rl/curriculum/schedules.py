"""Values that grow as training goes: horizons, lengths, anything that begins small."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int], float]
"""A value for each training step, or each group."""


def linear(first: float, last: float, steps: int) -> Schedule:
    """From `first` to `last` over so many steps, and `last` from then on."""
    return lambda step: first + (last - first) * min(1.0, step / steps)


def multiplicative(first: float, last: float, steps: int) -> Schedule:
    """`first` times 1, 2, 3, ... at even intervals, `last` at most and after `steps` steps: the schedule of TTI
    (arXiv:2506.07976, section 5.1: h = clip(h_min * i, h_min, h_max))."""
    stages = max(1, -(-last // first))
    return lambda step: min(last, first * (1 + int(step * (stages - 1) / steps))) if step < steps else last
