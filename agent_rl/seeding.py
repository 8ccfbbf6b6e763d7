"""Random streams keyed by what they are for, never global: a key gives the same stream in any order of events."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed for a key such as `(run_seed, task.id, member, turn)`; stable across processes and versions."""
    return _seed(hashlib.blake2b(_bytes(key), digest_size=8))


class SeedFamily:
    """`derive_seed(*key, last)` for many values of `last`, with the common part hashed once."""

    def __init__(self, *key: int | str) -> None:
        self._hash = hashlib.blake2b(_bytes(key) + b"\x1f", digest_size=8)

    def __call__(self, last: int | str) -> int:
        """The seed of `(*key, last)`."""
        hash = self._hash.copy()
        hash.update(_bytes((last,)))
        return _seed(hash)


def stream(*key: int | str) -> np.random.Generator:
    """A generator of its own for `key`."""
    return np.random.Generator(np.random.Philox(derive_seed(*key)))


def _bytes(key: tuple[int | str, ...]) -> bytes:
    return "\x1f".join([f"{type(part).__name__}:{part}" for part in key]).encode()


def _seed(hash: hashlib.blake2b) -> int:
    return int.from_bytes(hash.digest(), "little") >> 1
