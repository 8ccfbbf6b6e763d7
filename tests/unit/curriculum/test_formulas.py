"""Each algorithm against its published formula, by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from agent_rl.credit import get_estimator
from agent_rl.curriculum import get_weighting
from agent_rl.curriculum.domains import Outcomes
from agent_rl.curriculum.gvm import Gvm, allocate, score_norm
from agent_rl.curriculum.weakness import weak
from agent_rl.errors import ConfigError, NotFoundError
from agent_rl.testing.episodes import Played, make_group, make_trajectory


def seen(*episodes: tuple[int, float], group: int = 0, score: float = 1.0) -> Outcomes:
    """Episodes (domain, value) of one step, whose value is advantage, reward and success."""
    domain_E, value_E = np.array([d for d, _ in episodes]), np.array([v for _, v in episodes], np.float64)
    return Outcomes(domain_E, np.full(len(episodes), group), value_E, value_E, value_E, np.full(len(episodes), score))


def test_sec_learns_by_td_and_draws_by_boltzmann():
    sec = get_weighting("sec", {"learning_rate": 0.25, "temperature": 0.5})
    state = sec.start(3)
    np.testing.assert_allclose(sec.weights(state), [1 / 3] * 3)
    state = sec.update(state, seen((0, 0.8), (0, 0.4), (2, 0.8)))
    np.testing.assert_allclose(state["q_D"], [0.15, 0, 0.2])
    state = sec.update(state, seen((0, 1.0), (1, 0.4)))
    np.testing.assert_allclose(state["q_D"], [0.25 * 1.0 + 0.75 * 0.15, 0.1, 0.2])
    odds = [math.exp(q / 0.5) for q in (0.3625, 0.1, 0.2)]
    np.testing.assert_allclose(sec.weights(state), [o / sum(odds) for o in odds])


def test_what_sec_maximises_is_greatest_where_half_succeed():
    """Eq. 3 under standardised advantages: E|A| = 2 sqrt(p (1 - p)), here with the deviation of a sample of 8."""
    for successes in range(1, 8):
        episodes = [make_trajectory([Played(float(i < successes))], member=i) for i in range(8)]
        [advantages] = get_estimator("grpo")([make_group(*episodes)])
        p, found = successes / 8, np.mean([abs(rows[0][-1]) for rows in advantages])
        assert found == pytest.approx(2 * math.sqrt(p * (1 - p)) * math.sqrt(7 / 8), rel=1e-5)


def test_dump_bounds_what_a_distribution_can_teach():
    dump = get_weighting("dump", {"window": 3})
    state = dump.update(dump.start(2), seen((0, 0.9), (0, 0.1), (0, 0.2), (0, 0.6), (1, 0.5)))
    bounds = [0.3 + math.sqrt(2 * math.log(6) / 5), 0.5 + math.sqrt(2 * math.log(6) / 2)]
    odds = [math.exp(b / 0.1) for b in bounds]
    np.testing.assert_allclose(dump.weights(state), [o / sum(odds) for o in odds])
    np.testing.assert_allclose(dump.weights(dump.start(4)), [0.25] * 4)


def test_dads_weighs_what_is_missing_to_the_target():
    dads = get_weighting("domain_weights")
    state = dads.update(dads.start(3), seen((0, 1.0), (1, 0.2)))
    np.testing.assert_allclose(state["reward_D"], [1.0, 0.2, np.nan])
    state = dads.update(state, seen((0, 0.0), (1, 0.4), (0, 1.0)))
    np.testing.assert_allclose(state["reward_D"], [0.75, 0.3, np.nan])
    odds = [math.exp(v / 0.5) + 0.1 for v in (0.25, 0.7, 1.0)]
    np.testing.assert_allclose(dads.weights(state), [o / sum(odds) for o in odds])
    above = dads.update(dads.start(2), seen((0, 5.0), (1, 1.0)))
    np.testing.assert_allclose(dads.weights(above), [0.5, 0.5], err_msg="no more than solved")


def test_a_band_holds_what_is_neither_too_hard_nor_too_easy():
    band = get_weighting("band", {"low": 0.25, "high": 0.75, "explore": 0.2, "decay": 0.5})
    state = band.update(band.start(4), seen((0, 0.0), (1, 1.0), (1, 0.5), (2, 1.0)))
    np.testing.assert_allclose(band.weights(state), [0.05, 0.45, 0.05, 0.45], err_msg="1 is in it, 3 was not seen")
    state = band.update(state, seen((0, 0.5), (1, 1.0), (3, 1.0)))
    np.testing.assert_allclose(band.weights(state), [0.85, 0.05, 0.05, 0.05])
    state = band.update(state, seen((0, 0.0)))
    np.testing.assert_allclose(band.weights(state), [0.25] * 4, err_msg="an empty band")


@pytest.mark.parametrize(
    ("visits", "expected"),
    [
        ([np.nan, np.nan, 0.4, 0.2], True),
        ([0.2, 0.4, 0.1, 0.2], True),  # falls by 0.03 a visit
        ([0.0, 0.2, 0.1, 0.4], False),  # grows
        ([0.9, 0.4, 0.2, 0.1], False),  # was good once
        ([0.0, 0.0, 0.0, 0.0], False),  # has nothing to teach
        ([np.nan, np.nan, np.nan, 0.2], False),
    ],
)
def test_weak_is_what_stays_below_half_and_falls(visits: list[float], expected: bool):
    assert weak(np.array([visits])).tolist() == [expected]
    known = np.array([v for v in visits if not math.isnan(v)])
    if len(known) > 1:
        falls = np.polyfit(np.arange(len(known)), known, 1)[0] < -1e-9
        assert bool(falls and known.max() < 0.5) is expected


def test_weak_domains_come_again():
    weakness = get_weighting("weakness", {"replay": 0.5})
    state = weakness.start(4)
    for value in (0.4, 0.2):
        state = weakness.update(state, seen((2, value), (2, value)))
    np.testing.assert_allclose(weakness.weights(state), [0.125, 0.125, 0.625, 0.125])
    assert state["success_DV"][2].tolist()[-2:] == [0.4, 0.2]


def test_gvm_sizes_are_those_of_the_formula():
    gvm = Gvm(alpha=0.01, beta=3.0, decay=0.5)
    np.testing.assert_allclose(gvm.ratios(gvm.start(2)), [1, 1])
    state = gvm.update(gvm.start(3), seen((0, 1.0), (0, 0.0), (0, 0.0), score=2.0))
    state = gvm.update(state, seen((0, 1.0), (1, 0.0), score=4.0))
    p, norm = (1.5 + 0.5) / (2.5 + 1), (1.0 * 4 + 0.5 * 2) / 1.5
    failed = 4 / math.sqrt(0.25 + 0.01 / 0.25**2)
    solved = norm / math.sqrt(p + 0.01 / p**2)
    np.testing.assert_allclose(gvm.ratios(state), [solved, failed, (solved + failed) / 2])


def test_allocation_minimises_the_variance_of_the_sum():
    ratios, budget = np.array([1.0, 3.0, 0.2, 2.0]), 26
    for least in (0, 1, 4):
        sizes = allocate(ratios, budget, least)
        assert sizes.sum() == budget
        assert sizes.min() >= least
        every = itertools.product(range(max(1, least), budget), repeat=3)
        best = min(
            float((ratios**2 / np.array([*n, budget - sum(n)])).sum())
            for n in every
            if budget - sum(n) >= max(1, least)
        )
        assert float((ratios**2 / np.maximum(sizes, 1e-9)).sum()) == pytest.approx(best, rel=0.02)
    assert allocate(np.zeros(3), 8, 2).tolist() == [3, 3, 2]
    assert allocate(np.array([1.0, 0.0]), 16, 2).tolist() == [14, 2]


def test_the_squared_norm_of_the_score_is_unbiased():
    """Two tokens, the second's distribution depending on the first: all that can be sampled is enumerated."""
    first = np.array([0.5, 0.3, 0.2])
    second = np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]])
    true = estimate = 0.0
    for a, b in itertools.product(range(3), repeat=2):
        chance = first[a] * second[a][b]
        score = np.zeros((4, 3))  # the logits of the first token, and of the second after each first one
        score[0] = np.eye(3)[a] - first
        score[1 + a] = np.eye(3)[b] - second[a]
        true += chance * float((score**2).sum())
        episode = make_trajectory([Played(sampled=2)])
        logprobs = episode.segments[0].rollout_logprobs_T
        logprobs[1:] = np.log([first[a], second[a][b]])
        estimate += chance * score_norm(episode) ** 2
    assert estimate == pytest.approx(true, rel=1e-6)


def test_names_and_options_are_checked():
    with pytest.raises(NotFoundError, match="sec"):
        get_weighting("sac")
    with pytest.raises(NotFoundError, match="temperature"):
        get_weighting("dump", {"temprature": 1.0})
    with pytest.raises(ConfigError, match="curriculum band"):
        get_weighting("band", {"low": -1.0})
