from itertools import combinations

import numpy as np
import pytest

from agent_rl.evaluate import adastop as module
from agent_rl.evaluate.adastop import adastop


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch):
    monkeypatch.setattr(module, "PERMUTATIONS", 2000)


def test_a_large_difference_takes_one_look_and_a_small_one_more():
    rng = np.random.default_rng(0)
    scores = {"good": rng.normal(1, 0.05, 20), "bad": rng.normal(0, 0.05, 20), "like bad": rng.normal(0.0, 0.05, 20)}
    found = {(d.first, d.second): d for d in adastop(scores, seeds_each=5, times=4)}
    assert found["good", "bad"].verdict == found["good", "like bad"].verdict == "first is better"
    assert found["good", "bad"].seeds == 5
    assert found["good", "bad"].difference == pytest.approx(scores["good"][:5].mean() - scores["bad"][:5].mean())
    assert found["bad", "like bad"].verdict == "no difference found"
    assert found["bad", "like bad"].seeds == 20
    turned = adastop({"bad": scores["bad"], "good": scores["good"]}, seeds_each=5, times=4)
    assert [d.verdict for d in turned] == ["second is better"]


def test_it_asks_for_more_seeds_of_those_that_need_them():
    rng = np.random.default_rng(1)
    scores = {"good": rng.normal(1, 0.05, 5), "bad": rng.normal(0, 0.05, 5), "like bad": rng.normal(0, 0.05, 5)}
    verdicts = [d.verdict for d in adastop(scores, seeds_each=5, times=4)]
    assert verdicts == ["first is better", "first is better", "more seeds needed"]
    scores |= {"bad": rng.normal(0, 0.05, 10), "like bad": rng.normal(0, 0.05, 10)}  # good has 5 seeds still
    assert [d.seeds for d in adastop(scores, seeds_each=5, times=4)] == [5, 5, 10]
    assert adastop({"a": [1.0], "b": []}, seeds_each=5, times=4)[0].verdict == "more seeds needed"


def test_the_boundary_of_one_look_is_that_of_the_permutation_test():
    """5 against 5 seeds: of 252 deals, 12 (5%) may be as far apart. Both sides of that."""
    base = np.arange(10.0) ** 1.5
    sums = sorted((abs(2 * base[list(one)].sum() - base.sum()) for one in combinations(range(10), 5)), reverse=True)
    for chosen in combinations(range(10), 5):
        rest = [i for i in range(10) if i not in chosen]
        share = np.mean(np.array(sums) >= abs(base[list(chosen)].sum() - base[rest].sum()) - 1e-9)
        if 0.03 < share < 0.08:  # else the simulation decides the same anyway
            continue
        (found,) = adastop({"a": base[list(chosen)], "b": base[rest]}, seeds_each=5, times=1)
        assert (found.verdict != "no difference found") == (share <= 0.05), share


@pytest.mark.slow
def test_looking_often_at_many_pairs_finds_nothing_in_95_percent_of_cases(monkeypatch):
    monkeypatch.setattr(module, "PERMUTATIONS", 400)
    rng = np.random.default_rng(2)
    false = 0
    for case in range(600):
        scores = {name: rng.exponential(size=15) for name in "abc"}
        decisions = adastop(scores, seeds_each=5, times=3, seed=case)
        false += any(d.verdict != "no difference found" for d in decisions)
    assert false / 600 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


def test_what_makes_no_sense_is_refused():
    for scores, options in [({"a": [1.0]}, {}), ({"a": [1.0], "b": [2.0]}, {"seeds_each": 0})]:
        with pytest.raises(ValueError, match="at least"):
            adastop(scores, **{"seeds_each": 1, "times": 1} | options)
    with pytest.raises(ValueError, match="finite"):
        adastop({"a": [1.0], "b": [np.nan]}, seeds_each=1, times=1)
