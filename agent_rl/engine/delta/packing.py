"""Non-negative integers in few bits: blocks of 128, each with the width of its greatest. Knows nothing of weights.

Frame-of-reference coding as in Parquet's DELTA_BINARY_PACKED, but bit planes instead of bit strings: every operation is
one of whole arrays. Layout: the width of each block (one byte), then the blocks of width 1, of width 2 and so on; those
of width w are w planes of 16 bytes per block, of which plane b holds the bits of value 2^b.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 128


def pack(values: NDArray[np.uint64]) -> bytes:
    """`values`, whose number has to be kept elsewhere."""
    blocks = np.zeros((-(-len(values) // BLOCK), BLOCK), np.uint64)
    blocks.reshape(-1)[: len(values)] = values
    widths = _bit_length(blocks.max(axis=1, initial=0))
    parts = [widths.tobytes()]
    for width in np.unique(widths).tolist():
        same = blocks[widths == width]
        parts += [np.packbits((same >> np.uint64(bit)).astype(np.uint8) & 1, axis=1).tobytes() for bit in range(width)]
    return b"".join(parts)


def unpack(data: memoryview, count: int) -> tuple[NDArray[np.uint64], memoryview]:
    """`count` values, and what follows them in `data`. Raises `ValueError` for data that is too short."""
    n_blocks = -(-count // BLOCK)
    widths, data = np.frombuffer(data[:n_blocks], np.uint8), data[n_blocks:]
    blocks = np.zeros((n_blocks, BLOCK), np.uint64)
    for width in np.unique(widths).tolist():
        same = widths == width
        n_same = int(same.sum())
        values = np.zeros((n_same, BLOCK), np.uint64)
        for bit in range(width):
            plane = np.frombuffer(data[: n_same * BLOCK // 8], np.uint8).reshape(n_same, BLOCK // 8)
            values |= np.unpackbits(plane, axis=1).astype(np.uint64) << np.uint64(bit)
            data = data[plane.size :]
        blocks[same] = values
    return blocks.reshape(-1)[:count], data


def _bit_length(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    lengths = np.zeros(len(values), np.uint8)
    while values.any():
        lengths += values != 0
        values = values >> np.uint64(1)
    return lengths
