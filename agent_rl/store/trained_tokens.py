"""What the trainer saw of the sampled tokens of a segment when a step trained on them. Numpy only.

A blob: three planes for R tokens, compressed together. The log-probs as float32, for a ratio is the difference of two
that are nearly equal; the advantages as float32 too, byte by byte, since most often they are one number per episode;
entropies as float16, three digits to look at.
"""

from __future__ import annotations

import zlib

import numpy as np

from agent_rl.frozen import record
from agent_rl.types import FloatArray


@record(eq=False)
class TrainedTokens:
    """The trainer's side of a segment's R sampled tokens, in their order, at training step `step`.

    `logprobs_R` are those of the weights that the loss saw first in this step, which the sampler's compare with;
    `entropies_R` in nats. Both are NaN on a token without weight in the loss.
    """

    group_index: int
    member: int
    segment: int
    step: int
    logprobs_R: FloatArray
    advantages_R: FloatArray
    entropies_R: FloatArray


def to_blob(tokens: TrainedTokens) -> bytes:
    """At most 10 bytes per token, about 6 where an episode has one advantage."""
    advantages = np.ascontiguousarray(tokens.advantages_R.astype("<f4").view(np.uint8).reshape(-1, 4).T)
    parts = (tokens.logprobs_R.astype("<f4"), advantages, tokens.entropies_R.astype("<f2"))
    return zlib.compress(b"".join(part.tobytes() for part in parts), level=1)


def from_blob(blob: bytes) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log-probs, advantages, entropies."""
    data = zlib.decompress(blob)
    tokens = len(data) // 10
    logprobs, advantages, entropies = data[: 4 * tokens], data[4 * tokens : 8 * tokens], data[8 * tokens :]
    planes = np.ascontiguousarray(np.frombuffer(advantages, np.uint8).reshape(4, -1).T)
    return (
        np.frombuffer(logprobs, "<f4").astype(np.float32),
        planes.view("<f4").ravel().astype(np.float32),
        np.frombuffer(entropies, "<f2").astype(np.float32),
    )
