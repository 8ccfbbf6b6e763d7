import numpy as np
import pytest
import scipy.stats

from agent_rl.evaluate import seeds
from agent_rl.evaluate.seeds import interquartile_mean, probability_of_improvement, stratified
from agent_rl.evaluate.statistics import normal_critical, t_critical


@pytest.mark.parametrize("shape", [(3, 1), (5, 7), (4, 4), (1, 3)])
def test_the_interquartile_mean_is_scipys_and_rliables(shape):
    from rliable import metrics

    scores = np.random.default_rng(0).normal(size=shape)
    assert interquartile_mean(scores) == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None))
    assert interquartile_mean(scores) == pytest.approx(metrics.aggregate_iqm(scores))


def test_the_interval_is_the_papers_with_wider_tails():
    """The paper's: percentiles of the score of resampled seeds, drawn for each task by itself."""
    scores, rng = np.random.default_rng(1).beta(2, 3, size=(5, 8)), np.random.default_rng(0)
    drawn = [interquartile_mean(np.stack([rng.choice(scores[:, n], 5) for n in range(8)], 1)) for _ in range(4000)]
    estimate, wider = stratified(scores), np.sqrt(5 / 4) * t_critical(4) / normal_critical()
    for ours, percentile in zip((estimate.low, estimate.high), np.quantile(drawn, [0.025, 0.975]), strict=True):
        plain = estimate.value + (ours - estimate.value) / wider
        assert plain == pytest.approx(percentile, abs=0.006)  # of a width of 0.15: both are simulated


def test_an_interval_is_reproducible_and_its_blocks_do_not_change_it(monkeypatch):
    scores = np.random.default_rng(2).random((4, 6))
    whole = stratified(scores, seed=3)
    assert whole == stratified(scores, seed=3) != stratified(scores, seed=4)
    monkeypatch.setattr(seeds, "RESAMPLES", 4001)
    again = stratified(scores, seed=3)
    assert (again.low, again.high) == pytest.approx((whole.low, whole.high), abs=0.01)


@pytest.mark.parametrize("scores", [np.ones((1, 5)), np.ones((3, 0)), np.array([[1.0], [np.nan]])])
def test_too_little_to_say_is_refused(scores):
    with pytest.raises(ValueError, match="two seeds"):
        stratified(scores)


def test_probability_of_improvement_is_mann_and_whitneys_u():
    rng = np.random.default_rng(3)
    ours, theirs = rng.integers(0, 4, (5, 6)).astype(float), rng.integers(0, 4, (3, 6)).astype(float)
    expected = [scipy.stats.mannwhitneyu(ours[:, n], theirs[:, n]).statistic / 15 for n in range(6)]
    assert probability_of_improvement(ours, theirs) == pytest.approx(np.mean(expected))
    with pytest.raises(ValueError, match="same tasks"):
        probability_of_improvement(ours, theirs[:, :5])


@pytest.mark.slow
@pytest.mark.parametrize("runs", [5, 10])
def test_coverage_over_new_sets_of_seeds_is_at_least_93_percent(runs, monkeypatch):
    """Tasks of different difficulty and spread; the truth is the interquartile mean of very many seeds."""
    monkeypatch.setattr(seeds, "RESAMPLES", 1000)
    rng = np.random.default_rng(4)
    center_N, spread_N = rng.uniform(0.2, 0.8, 6), rng.uniform(0.02, 0.1, 6)
    truth = np.mean([interquartile_mean(rng.normal(center_N, spread_N, (runs, 6))) for _ in range(20_000)])
    sets = [stratified(rng.normal(center_N, spread_N, (runs, 6))) for _ in range(1000)]
    assert 0.93 <= np.mean([found.low <= truth <= found.high for found in sets]) <= 0.99
