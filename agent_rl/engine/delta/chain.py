"""Which weights a delta belongs to: names that only who has all before it can have. Hashes, nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delta:
    """Turns the weights called `base` into those called `name`, which is a hash of `base` and `data`.

    Equal names are equal bits: whoever has `base` has what the sender had, and the hash shows that nothing was lost.
    `data` is a safetensors file with a code (see `coding`) for each tensor that changed.
    """

    base: str
    name: str
    data: bytes


def name_after(base: str, data: bytes) -> str:
    """The name of the weights that `data` makes of those called `base`."""
    return hashlib.blake2b(base.encode() + data, digest_size=16).hexdigest()
