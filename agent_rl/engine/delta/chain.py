"""Which weights a delta belongs to: names that only who has all before it can have. Hashes, nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delta:
    """Turns certain weights into those called `name`, which is a hash of the name of the former and `data`.

    Equal names are equal bits: only with the weights that the sender started from, and data that arrived whole, does
    the hash come out as `name`. `data` is a safetensors file with a code (see `coding`) for each tensor that changed.
    """

    name: str
    data: bytes


def name_after(base: str, data: bytes) -> str:
    """The name of the weights that `data` makes of those called `base`."""
    return hashlib.blake2b(base.encode() + data, digest_size=16).hexdigest()
