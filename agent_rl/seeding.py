"""Random streams keyed by what they are for, never global: a key gives the same stream in any order of events."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed for a key such as `(run_seed, task.id, member, turn)`; stable across processes and versions."""
    digest = hashlib.blake2b("\x1f".join(f"{type(k).__name__}:{k}" for k in key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(*key: int | str) -> np.random.Generator:
    """A generator of its own for `key`."""
    return np.random.Generator(np.random.Philox(derive_seed(*key)))
