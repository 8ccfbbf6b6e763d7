import numpy as np
import pytest

from agent_rl.evaluate import scaling
from agent_rl.evaluate.scaling import fit_sigmoid, sigmoid

TRUTH = (0.8, 1.6, 300.0)


def curve(points: int, noise: float, until: float = 2000.0, seed: int = 0):
    compute = np.linspace(until / points, until, points)
    return compute, sigmoid(compute, 0.1, *TRUTH) + np.random.default_rng(seed).normal(0, noise, points)


def test_the_sigmoid_has_its_landmarks():
    compute = np.array([1e-9, 300.0, 1e12])
    assert sigmoid(compute, 0.1, *TRUTH) == pytest.approx([0.1, 0.45, 0.8], abs=1e-6)


def test_a_curve_without_noise_is_found_exactly():
    fit = fit_sigmoid(*curve(40, 0.0), 0.1)
    found = (fit.asymptote.value, fit.steepness.value, fit.midpoint.value)
    assert found == pytest.approx(TRUTH, rel=1e-4)
    assert fit.asymptote.high - fit.asymptote.low < 1e-3


def test_noise_widens_the_band_and_more_so_beyond_the_data():
    compute, reward = curve(60, 0.03, until=500.0)
    fit = fit_sigmoid(compute, reward, 0.1)
    value, low, high = fit.predict(np.array([250.0, 4000.0]))
    width = high - low
    assert (low <= value).all()
    assert (value <= high).all()
    assert width[1] > 3 * width[0] > 0
    assert high[1] <= 1.0
    assert fit.asymptote.low <= TRUTH[0] <= fit.asymptote.high


def test_a_fit_is_reproducible():
    data = curve(30, 0.05)
    assert fit_sigmoid(*data, 0.1, seed=1).asymptote == fit_sigmoid(*data, 0.1, seed=1).asymptote


@pytest.mark.slow
def test_the_band_covers_the_curve_in_most_cases(monkeypatch):
    """Nominally 95%, of which a bootstrap of a nonlinear fit falls somewhat short."""
    monkeypatch.setattr(scaling, "REFITS", 60)
    at = np.array([300.0, 1500.0])
    hits = []
    for seed in range(30):
        compute, reward = curve(50, 0.04, until=1000.0, seed=seed)
        _, low, high = fit_sigmoid(compute, reward, 0.1, seed=seed).predict(at)
        truth = sigmoid(at, 0.1, *TRUTH)
        hits.append((low <= truth) & (truth <= high))
    assert (np.mean(hits, axis=0) >= 0.75).all()


def test_what_cannot_be_fitted_is_refused():
    compute, reward = curve(20, 0.0)
    for arguments in ((compute[:5], reward[:5], 0.1), (compute - 1000, reward, 0.1), (compute, reward, 1.0)):
        with pytest.raises(ValueError, match="a curve needs"):
            fit_sigmoid(*arguments)
