"""Utterances as transitions: where a critic reads them in token rows, and what their values should be.

Pure numpy. An utterance is a turn that has tokens. Its context o ends before its first token, its action a with its
last; what follows is the context of the next one, wherever that stands: a rewritten history begins a new row.
Shapes: U utterances, S sites (places in rows where something is read), 2 critics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent_rl.types import FloatArray, IntArray, Trajectory

Float64s: TypeAlias = NDArray[np.float64]
Double: TypeAlias = Literal["min", "soft_min", "independent"]
Combine: TypeAlias = Callable[[Float64s], Float64s]
"""Two critics' values, shape (U, 2), as what both are told."""


@dataclass(frozen=True, slots=True, eq=False)
class Utterances:
    """The utterances of some episodes, in order, and the rows that they stand in.

    `sites[r]` are the places of row r where a value is read: `t` stands for the first `t` tokens. Counted through all
    rows, utterance u's context ends at site `before_U[u]` and its action at site `after_U[u]`. `next_U` is the number
    of the following utterance, -1 after the last; `cut_U` marks last ones of `interrupted` episodes: a limit hides what
    was to come.
    """

    rows: tuple[IntArray, ...]
    sites: tuple[IntArray, ...]
    before_U: IntArray
    after_U: IntArray
    rewards_U: Float64s
    next_U: IntArray
    cut_U: NDArray[np.bool_]


class _Place(NamedTuple):
    row: int
    before: int
    after: int


def find_utterances(episodes: Sequence[Trajectory]) -> Utterances:
    """All utterances of `episodes`. What a turn without tokens earned goes to the utterance before it.

    An utterance that nothing precedes has no context to read: its value is read after its first token.
    """
    rows: list[IntArray] = []
    places: list[_Place] = []
    rewards: list[float] = []
    following: list[int] = []
    cut: list[bool] = []
    for episode in episodes:
        first = len(places)
        for turn in episode.turns:
            if turn.end > turn.start:
                places.append(_Place(len(rows) + turn.segment, max(turn.start, 1), turn.end))
                rewards.append(turn.reward)
            elif len(places) > first:
                rewards[-1] += turn.reward
        count = len(places) - first
        following += [*range(first + 1, len(places)), -1][:count]
        cut += [*[False] * (count - 1), episode.interrupted][:count]
        rows += [segment.token_ids_T for segment in episode.segments]
    sites, before_U, after_U = _sites(len(rows), places)
    next_U, cut_U = np.array(following, np.int32), np.array(cut, np.bool_)
    return Utterances(tuple(rows), sites, before_U, after_U, np.array(rewards, np.float64), next_U, cut_U)


def _sites(rows: int, places: Sequence[_Place]) -> tuple[tuple[IntArray, ...], IntArray, IntArray]:
    """The sites of every row, each once, and the numbers of those before and after each place."""
    wanted: list[set[int]] = [set() for _ in range(rows)]
    for place in places:
        wanted[place.row] |= {place.before, place.after}
    sites = tuple(np.array(sorted(positions), np.int32) for positions in wanted)
    numbers: dict[tuple[int, int], int] = {}
    for row, positions in enumerate(sites):
        for position in positions.tolist():
            numbers[row, position] = len(numbers)
    before_U = np.array([numbers[place.row, place.before] for place in places], np.int32)
    after_U = np.array([numbers[place.row, place.after] for place in places], np.int32)
    return sites, before_U, after_U


class SiteTargets(NamedTuple):
    """What the heads of Q and of V should say at each site, and how much each counts; 0 where nothing is asked."""

    q_S2: FloatArray
    q_weights_S: FloatArray
    v_S2: FloatArray
    v_weights_S: FloatArray


def bellman_targets(
    utterances: Utterances, q_S2: FloatArray, v_S2: FloatArray, weights_U: Float64s, gamma: float, combine: Combine
) -> SiteTargets:
    """Q(o, a) <- r + gamma V'(o'), V(o) <- Q'(o, a); `q_S2` and `v_S2` are what the target network says.

    ArCHer (arXiv:2402.19446), equation 2. Behind the end of the task V' is 0. Where a limit cut an episode, o' is in no
    row: V' is read after the action, where V is taught V'(o') by the utterances whose o' is known. `weights_U` say how
    much the stored action counts for V: 1, or its importance under the present policy.
    """
    u = utterances
    known = u.next_U >= 0
    following_U2 = combine(_following(u, v_S2))
    share, sites = 1 / max(1, len(u.next_U)), len(q_S2)
    targets = SiteTargets(*(np.zeros(shape, np.float32) for shape in ((sites, 2), sites, (sites, 2), sites)))
    targets.v_S2[u.after_U[known]] = following_U2[known]
    targets.v_weights_S[u.after_U[known]] = share
    targets.v_S2[u.before_U] = combine(q_S2[u.after_U].astype(np.float64))  # after: o' may begin where a ends
    targets.v_weights_S[u.before_U] = weights_U * share
    targets.q_S2[u.after_U] = u.rewards_U[:, None] + gamma * following_U2
    targets.q_weights_S[u.after_U] = share
    return targets


def td_errors(utterances: Utterances, v_S: Float64s, gamma: float) -> Float64s:
    """r + gamma V(o') - V(o) of every utterance, with the o' that followed: the advantage, as far as one play shows it.

    Exact where the same action always leads to the same o', unbiased elsewhere.
    """
    return utterances.rewards_U + gamma * _following(utterances, v_S) - v_S[utterances.before_U]


def _following(utterances: Utterances, v_S: FloatArray | Float64s) -> Float64s:
    """V behind every utterance; `v_S` may have more axes. 0 behind the end of the task."""
    u = utterances
    following_U = np.zeros((len(u.next_U), *v_S.shape[1:]), np.float64)
    following_U[u.cut_U] = v_S[u.after_U[u.cut_U]]
    known = u.next_U >= 0
    following_U[known] = v_S[u.before_U[u.next_U[known]]]
    return following_U


def returns_of(utterances: Utterances, gamma: float) -> Float64s:
    """The discounted rewards from each utterance on, as far as they are known: what values can be compared with."""
    returns_U = utterances.rewards_U.copy()
    for u in range(len(returns_U) - 2, -1, -1):
        if utterances.next_U[u] >= 0:
            returns_U[u] += gamma * returns_U[u + 1]
    return returns_U


def soft_min(values_U2: Float64s, temperature: float) -> Float64s:
    """-temperature log mean exp(-x / temperature) over the last axis: the minimum as it goes to 0, the mean for large.

    The double soft-min critic of SAFE (arXiv:2602.04651).
    """
    least_U = values_U2.min(-1)
    excess_U2 = (values_U2 - least_U[..., None]) / temperature
    return least_U - temperature * np.log(np.exp(-excess_U2).mean(-1))


def pessimism(double: Double, temperature: float) -> Combine:
    """How two critics become targets for both: their minimum, their soft minimum, or each its own."""
    if double == "independent":
        return lambda values_U2: values_U2
    return partial(_for_both, lower=lower_of(double, temperature))


def lower_of(double: Double, temperature: float) -> Combine:
    """How two critics become one value, (U,). Those that learn apart meet in their minimum, as in the paper's code."""
    return partial(soft_min, temperature=temperature) if double == "soft_min" else partial(np.min, axis=-1)


def _for_both(values_U2: Float64s, lower: Combine) -> Float64s:
    return np.repeat(lower(values_U2)[:, None], 2, axis=1)
