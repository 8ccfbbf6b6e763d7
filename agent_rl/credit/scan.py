"""Sums over many runs of values at once. Knows numbers only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent_rl.credit.estimator import Float64s, Indices

_BLOCK = 32


def sums(numbers: Indices, values: NDArray[np.generic], count: int) -> Float64s:
    """The sum of the values with number 0, 1, ... `count` - 1."""
    return np.bincount(numbers, values, count).astype(np.float64, copy=False)


def discounted_sums(values: Float64s, lengths: Indices, decay: float) -> Float64s:
    """y_t = x_t + decay y_{t+1} within each run of values; `lengths` has one entry per run and sums to all of them.

    By blocks, each of one run: a matrix product sums within them, and what follows each block is the same problem of
    a size that is 1/32. No loop over values or runs.
    """
    blocks = -(-lengths // _BLOCK)
    shift = (np.cumsum(blocks) - blocks) * _BLOCK - (np.cumsum(lengths) - lengths)
    places = np.repeat(shift, lengths) + np.arange(len(values))
    padded = np.zeros(int(blocks.sum()) * _BLOCK)
    padded[places] = values
    ahead = np.arange(_BLOCK)[:, None] - np.arange(_BLOCK)[None, :]
    sums = padded.reshape(-1, _BLOCK) @ np.where(ahead >= 0, decay ** np.maximum(ahead, 0), 0.0)
    if blocks.max(initial=0) > 1:
        following = np.append(discounted_sums(sums[:, 0], blocks, decay**_BLOCK)[1:], 0.0)
        following[np.cumsum(blocks)[blocks > 0] - 1] = 0.0
        sums += following[:, None] * decay ** np.arange(_BLOCK, 0, -1)
    return sums.ravel()[places]
