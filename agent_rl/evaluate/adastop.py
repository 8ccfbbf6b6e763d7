"""AdaStop: compare recipes with as few seeds as it takes, and with a bound on false discoveries.

Each recipe is run with N seeds more at a time, at most K times. After each time a permutation test asks which pairs
differ already, with a boundary such that looking K times, at all pairs, finds a difference where there is none with
probability at most alpha (Mathieu et al. 2023, "AdaStop", arXiv:2306.10882). Pure numpy; knows numbers, not runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent_rl.evaluate.statistics import Values

PERMUTATIONS = 10_000
Verdict: TypeAlias = Literal["first is better", "second is better", "no difference found", "more seeds needed"]


@dataclass(frozen=True, slots=True)
class Decision:
    """On one pair of recipes. `seeds` of each were looked at; `difference` is the first's mean minus the second's."""

    first: str
    second: str
    verdict: Verdict
    seeds: int
    difference: float


@dataclass(slots=True, eq=False)
class _Pair:
    first: str
    second: str
    observed: float
    permuted_B: NDArray[np.float64]
    decided_at: int | None = None


def adastop(
    scores: Mapping[str, Sequence[float]], *, seeds_each: int, times: int, alpha: float = 0.05, seed: int = 0
) -> list[Decision]:
    """Decide on every pair of recipes, given the scores of their seeds so far, in the order in which they were run.

    `seeds_each` is N and `times` K; both are chosen before the first run. Seeds beyond what a pair needed are not
    looked at, and a recipe whose pairs are decided needs no more. The same seed gives the same decisions.
    Raises `ValueError` for fewer than two recipes, N or K below 1, or scores that are not finite.
    """
    if len(scores) < 2 or seeds_each < 1 or times < 1:
        raise ValueError("a comparison needs at least two recipes, and at least one seed at least once")
    if not all(np.isfinite(list(of_one)).all() for of_one in scores.values()):
        raise ValueError("a score is not finite")
    rng = np.random.default_rng(seed)
    pairs = [_Pair(a, b, 0.0, np.zeros(PERMUTATIONS)) for a, b in itertools.combinations(scores, 2)]
    alive_B, spent, time = np.ones(PERMUTATIONS, np.bool_), 0, 0
    while time < times and (open_pairs := [pair for pair in pairs if pair.decided_at is None]):
        block = slice(time * seeds_each, (time + 1) * seeds_each)
        if any(len(scores[name]) < block.stop for pair in open_pairs for name in (pair.first, pair.second)):
            break
        time += 1
        for pair in open_pairs:
            _look(pair, np.array(scores[pair.first][block]), np.array(scores[pair.second][block]), rng)
        allowed = int(alpha * time / times * PERMUTATIONS) - spent
        crossed_B = _decide(open_pairs, alive_B, allowed, time)
        spent += int((crossed_B & alive_B).sum())
        alive_B &= ~crossed_B
    return [_decision(pair, time, times, seeds_each, scores) for pair in pairs]


def _look(pair: _Pair, a_N: Values, b_N: Values, rng: np.random.Generator) -> None:
    """Add a block of seeds to the sums: the observed one, and those with the seeds dealt anew to the two recipes.

    The first of all permutations is the observed one, so that the test is valid for any number of them.
    """
    both, seeds = np.concatenate([a_N, b_N]), len(a_N)
    order_BM = rng.random((PERMUTATIONS, 2 * seeds)).argsort(1)
    order_BM[0] = np.arange(2 * seeds)
    dealt_BM = both[order_BM]
    pair.permuted_B += dealt_BM[:, :seeds].sum(1) - dealt_BM[:, seeds:].sum(1)
    pair.observed = float(pair.permuted_B[0])


def _decide(pairs: list[_Pair], alive_B: NDArray[np.bool_], allowed: int, time: int) -> NDArray[np.bool_]:
    """Decide on the pairs whose sum lies beyond the boundary, the clearest first; each makes the others' lower.

    The boundary is the least that at most `allowed` of the permutations still `alive_B` cross. Returns those that do.
    """
    while True:
        largest_B = np.max([np.abs(pair.permuted_B) for pair in pairs], axis=0)
        ranked = np.sort(np.where(alive_B, largest_B, -np.inf))[::-1]
        boundary = ranked[allowed] * (1 + 1e-9) + 1e-12  # equal sums differ in their last bits
        clearest = max(pairs, key=lambda pair: abs(pair.observed))
        if abs(clearest.observed) <= boundary:
            return largest_B > boundary
        clearest.decided_at = time
        pairs.remove(clearest)
        if not pairs:
            return largest_B > boundary


def _decision(pair: _Pair, time: int, times: int, seeds_each: int, scores: Mapping[str, Sequence[float]]) -> Decision:
    seeds = (pair.decided_at or time) * seeds_each
    if pair.decided_at is not None:
        verdict: Verdict = "first is better" if pair.observed > 0 else "second is better"
    else:
        verdict = "no difference found" if time == times else "more seeds needed"
    means = [float(np.mean(scores[name][:seeds])) if seeds else 0.0 for name in (pair.first, pair.second)]
    return Decision(pair.first, pair.second, verdict, seeds, means[0] - means[1])
