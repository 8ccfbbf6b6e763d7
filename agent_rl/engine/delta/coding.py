"""One tensor as what changed since before, in bits: NaNs, infinities and signs of zeros come back as they are.

Arrays are flat views of weights as unsigned integers of the same size. A step of reinforcement learning changes few
bf16 weights, each to one of its neighbours: positions are kept as gaps and values as differences of their bits, both
packed. What is not smaller that way is sent whole.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_rl.engine.delta.packing import pack, unpack

Bits = NDArray[np.unsignedinteger[Any]]
_COUNT = struct.Struct("<q")
_WHOLE = -1


def encode(old: Bits, new: Bits) -> bytes | None:
    """What turns `old` into `new`; none when they are equal."""
    changed = np.flatnonzero(old != new)
    if not len(changed):
        return None
    gaps = np.diff(changed, prepend=-1) - 1
    code = _COUNT.pack(len(changed)) + pack(gaps.astype(np.uint64)) + pack(_zigzag(new[changed] - old[changed]))
    return code if len(code) < new.nbytes else _COUNT.pack(_WHOLE) + new.tobytes()


def apply(code: bytes | memoryview, bits: Bits) -> None:
    """Turn `bits` from the old ones into the new ones, in place. Raises `ValueError` for a code of other weights."""
    data = memoryview(code)
    (count,) = _COUNT.unpack(data[: _COUNT.size])
    data = data[_COUNT.size :]
    if count == _WHOLE:
        bits[:] = np.frombuffer(data, bits.dtype)
        return
    gaps, data = unpack(data, count)
    differences, data = unpack(data, count)
    changed = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(data) or not 0 <= changed[-1] < len(bits):
        raise ValueError("the code belongs to a tensor of another size")
    bits[changed] += _unzigzag(differences).astype(bits.dtype)


def _zigzag(differences: Bits) -> NDArray[np.uint64]:
    """Differences that wrap around, as 0, 1, 2, 3 for 0, -1, 1, -2: small ones of either sign become small."""
    signed = differences.view(differences.dtype.str.replace("u", "i")).astype(np.int64)
    return ((signed << 1) ^ (signed >> 63)).view(np.uint64)


def _unzigzag(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (values >> np.uint64(1)) ^ (np.uint64(0) - (values & np.uint64(1)))
