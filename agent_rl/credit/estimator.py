"""What every estimator takes and gives. Knows shapes, no formula.

Shapes: E valid episodes, S steps, K turns, M sampled tokens of a batch, in order; G members of one group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent_rl.types import FloatArray

Advantages: TypeAlias = tuple[tuple[FloatArray, ...], ...]
"""`advantages[i][s]` is `advantages_T` of segment `s` of `group.valid[i]`; 0 outside sampled tokens."""

Float64s: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]


class Values(NamedTuple):
    """What a critic says of one group. Laid out as `Advantages`.

    `tokens[i][s]` holds V of the context before each sampled token of segment `s` of `group.valid[i]`. `final_G` is V
    of the state after each member's last turn, which counts only where a limit cut the episode.
    """

    tokens: Advantages
    final_G: FloatArray


class TurnValues(NamedTuple):
    """What an utterance-level critic says of one group.

    `advantages[i]` is A_K of the turns k of `group.valid[i]`: Q(o_k, a_k) - V(o_k), or the TD error of what followed; 0
    for turns without tokens.
    `baseline` is what a token critic expects of A before each sampled token, laid out as `Advantages`.
    """

    advantages: tuple[FloatArray, ...]
    baseline: Advantages | None = None


EpisodeEstimator: TypeAlias = Callable[..., Float64s]
"""`estimate(episodes, **options)`: `advantages_E`, one for all sampled tokens of each episode."""

StepEstimator: TypeAlias = Callable[..., Float64s]
"""`estimate(episodes, **options)`: `advantages_S`, one for the sampled tokens of each step."""

CriticEstimator: TypeAlias = Callable[..., Float64s]
"""`estimate(episodes, values_M, final_E, **options)`: `advantages_M`, one for each sampled token.

`values_M` is V of the context before each token, `final_E` V of what came after each episode: 0 where it ended itself.
"""

UtteranceEstimator: TypeAlias = Callable[..., Float64s]
"""`estimate(episodes, advantages_D, baseline_M, **options)`: `advantages_M`, one for each sampled token.

`advantages_D` is that of each turn that has tokens, `baseline_M` what is expected of it before each token.
"""
