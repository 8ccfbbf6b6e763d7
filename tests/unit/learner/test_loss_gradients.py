"""Every registered loss, divergence and imitation loss: gradients by finite differences, expectations by enumeration.

The tests run over the registries: registering a new one is testing it.
"""

import math

import pytest
import torch

from agent_rl.learner.imitation_losses import IMITATION_LOSSES, get_imitation_loss
from agent_rl.learner.losses import LOSSES, get_loss, sees_rows
from agent_rl.learner.low_probability import lp_reg
from agent_rl.learner.mismatch import CORRECTIONS, get_correction
from agent_rl.learner.penalties import DIVERGENCES, EXACT_DIVERGENCES
from agent_rl.learner.row_losses import gmpo, gspo, mirror, topr, turn_clip, turn_mirror
from tests.unit.learner.differences import check_gradient

K = 42
DOCUMENTS = torch.arange(K) // 14
TURNS = torch.arange(K) // 7
SPANS = {"documents": DOCUMENTS, "turns": TURNS}


def draw(seed: int = 0) -> dict[str, torch.Tensor]:
    """Log-probs, some way off those of before and of the sampler; no ratio is near a clip."""
    generator = torch.Generator().manual_seed(seed)
    random = lambda: torch.randn(K, dtype=torch.float64, generator=generator)  # noqa: E731
    logprobs = -0.1 - random().abs()
    weights = random().abs()
    return {
        "logprobs": logprobs,
        "old": logprobs + 0.4 * random(),
        "rollout": logprobs + 0.4 * random(),
        "advantages": random(),
        "weights": weights / weights.sum(),
    }


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_policy_loss_has_the_gradient_of_its_finite_differences(name, correction):
    t = draw()
    weights = t["weights"] * get_correction(correction)(t["old"], t["rollout"], DOCUMENTS)
    loss = get_loss(name)
    gradient = check_gradient(lambda p: loss(p, t["old"], t["advantages"], weights, **SPANS).loss, t["logprobs"])
    assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize("options", [{"dual_clip": 1.5}, {"clip_low": 0.05, "clip_high": 0.05}])
def test_options_of_ppo_clip_too(options):
    t = draw(1)
    loss = get_loss("ppo_clip", options)
    check_gradient(lambda p: loss(p, t["old"], t["advantages"], t["weights"], **SPANS).loss, t["logprobs"])


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_has_the_gradient_of_its_finite_differences(name):
    t = draw()
    assert check_gradient(lambda p: DIVERGENCES[name](p, t["old"]).sum(), t["logprobs"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", EXACT_DIVERGENCES)
def test_an_exact_divergence_has_the_gradient_of_its_finite_differences(name):
    torch.manual_seed(0)
    logits, reference = torch.randn(2, 4, 9, dtype=torch.float64)
    term = EXACT_DIVERGENCES[name]
    gradient = check_gradient(lambda z: term(z.log_softmax(-1), reference.log_softmax(-1)).sum(), logits)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("name", IMITATION_LOSSES)
def test_an_imitation_loss_has_the_gradient_of_its_finite_differences(name):
    t = draw()
    gradient = check_gradient(lambda p: get_imitation_loss(name)(p, t["old"]).sum(), t["logprobs"])
    assert (gradient < 0).all()  # every demonstrated token becomes likelier


def test_lp_reg_has_the_gradient_of_its_finite_differences():
    t = draw()
    proxy = torch.where(torch.arange(K) % 3 == 0, -torch.inf, t["old"])
    gradient = check_gradient(lambda p: lp_reg(p, proxy).sum(), t["logprobs"])
    assert torch.equal(gradient < 0, t["logprobs"] < proxy)
    assert torch.equal(gradient == 0, t["logprobs"] >= proxy)


def test_a_stopped_gradient_that_the_check_cannot_see_fails_it():
    def hidden(p: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            weight = p.exp()
        return (weight * p).sum()

    with pytest.raises(AssertionError):
        check_gradient(hidden, draw()["logprobs"])


# --- expectations over a categorical policy, exactly ----------------------------------------------------------------


LOGITS = torch.tensor([0.3, -0.5, 1.1, 0.2], dtype=torch.float64)
SAMPLER = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
ADVANTAGES = torch.tensor([1.0, -2.0, 0.5, -0.3], dtype=torch.float64)


def policy_gradient() -> torch.Tensor:
    """Of the expected advantage, downhill."""
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(-(logits.softmax(0) * ADVANTAGES).sum(), logits)[0]


def expected_gradient(name: str, sampled: torch.Tensor, old: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Of a loss over all actions, each a row of one token, weighted by how often they are sampled."""
    logits = LOGITS.clone().requires_grad_()
    rows = torch.arange(len(LOGITS))
    spans = {"documents": rows, "turns": rows}
    loss = get_loss(name)(logits.log_softmax(0), old, ADVANTAGES, sampled * factors, **spans).loss
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("name", LOSSES)
def test_on_policy_every_loss_has_the_policy_gradient(name):
    current = LOGITS.softmax(0)
    torch.testing.assert_close(
        expected_gradient(name, current, current.log(), torch.ones_like(current)), policy_gradient()
    )


@pytest.mark.parametrize("name", LOSSES)
def test_with_importance_weights_samples_of_another_policy_have_the_policy_gradient(name):
    old = LOGITS.log_softmax(0)
    factors = get_correction("importance")(old, SAMPLER.log(), torch.arange(4))
    torch.testing.assert_close(expected_gradient(name, SAMPLER, old, factors), policy_gradient())


def test_uncorrected_they_have_not():
    old = LOGITS.log_softmax(0)
    biased = expected_gradient("reinforce", SAMPLER, old, torch.ones_like(SAMPLER))
    assert (biased - policy_gradient()).abs().max() > 0.05


@pytest.mark.parametrize("name", ["cispo", "ppo_clip"])
def test_a_ratio_within_the_clip_is_the_importance_weight(name):
    wide = {"clip_low": 1.0, "clip_high": 100.0}
    logits = LOGITS.clone().requires_grad_()
    loss = get_loss(name, wide)(logits.log_softmax(0), SAMPLER.log(), ADVANTAGES, SAMPLER, **SPANS).loss
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], policy_gradient())


# --- closed forms of whole rows and turns ---------------------------------------------------------------------------


def equal_in_spans(spans: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages that are equal in each span, and weights as of `sequence_mean` over spans."""
    counts = torch.bincount(spans)
    return draw()["advantages"][spans], (1 / counts[spans] / len(counts)).double()


@pytest.mark.parametrize(("loss", "span"), [(gspo, "documents"), (turn_clip, "turns")])
def test_a_clip_of_a_span_is_the_published_form_where_advantages_are_equal(loss, span):
    t, spans = draw(), SPANS[span]
    advantages, weights = equal_in_spans(spans)
    p, q = (t["logprobs"].clone().requires_grad_() for _ in range(2))
    token_form = loss(p, t["old"], advantages, weights, **{span: spans}, clip_low=0.1, clip_high=0.1).loss
    terms = []
    for number in range(int(spans.max()) + 1):
        inside = spans == number
        ratio, a = (q - t["old"])[inside].mean().exp(), advantages[inside][0]
        terms.append(torch.minimum(ratio * a, ratio.clamp(0.9, 1.1) * a))
    published = -torch.stack(terms).mean()
    torch.testing.assert_close(token_form, published)
    torch.testing.assert_close(torch.autograd.grad(token_form, p), torch.autograd.grad(published, q))


def test_gmpo_is_the_published_form_where_advantages_are_equal():
    t = draw()
    advantages, weights = equal_in_spans(DOCUMENTS)
    p, q = (t["logprobs"].clone().requires_grad_() for _ in range(2))
    token_form = gmpo(p, t["old"], advantages, weights, documents=DOCUMENTS, clip_low=0.2, clip_high=0.3)
    terms = []
    for row in range(3):
        inside = row == DOCUMENTS
        log_ratio, a = (q - t["old"])[inside], advantages[inside][0]
        limited = log_ratio.clamp(max=0.3) if a > 0 else log_ratio.clamp(min=-0.2)
        terms.append(a * limited.mean().exp())
    published = -torch.stack(terms).mean()
    torch.testing.assert_close(token_form.loss, published)
    torch.testing.assert_close(torch.autograd.grad(token_form.loss, p), torch.autograd.grad(published, q))
    assert 0 < token_form.metrics["clip_fraction"] < 1


def test_topr_imitates_good_rows_and_lets_bad_ones_fade():
    old = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    p = (old + torch.tensor([-2.0, -1.0, -2.0, -1.0, 3.0])).requires_grad_()
    advantages, documents = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0]).double(), torch.tensor([0, 0, 1, 1, 2])
    topr(p, old, advantages, torch.ones_like(old), documents=documents).loss.backward()
    faded = math.exp(-3)  # the whole row's ratio, at most 1
    assert p.grad.tolist() == pytest.approx([-1, -1, faded, faded, 1])


@pytest.mark.parametrize(("loss", "span"), [(mirror, "documents"), (turn_mirror, "turns")])
def test_mirror_descent_is_least_squares_of_scaled_advantages(loss, span):
    """Published: the mean over responses (steps) of (A / temperature - sum of log r)^2, here times temperature / 2."""
    t, spans = draw(), SPANS[span]
    number = int(spans.max()) + 1
    advantages, weights = draw(1)["advantages"][spans], torch.full((K,), 1 / number, dtype=torch.float64)
    p, q = (t["logprobs"].clone().requires_grad_() for _ in range(2))
    token_form = loss(p, t["old"], advantages, weights, **{span: spans}, temperature=0.7).loss
    published = constant = torch.zeros((), dtype=torch.float64)
    for i in range(number):
        inside = spans == i
        a = advantages[inside][0]
        published = published + 0.7 / 2 * (a / 0.7 - (q - t["old"])[inside].sum()).square() / number
        constant = constant + a.square() / (2 * 0.7) / number
    torch.testing.assert_close(token_form, published - constant)
    torch.testing.assert_close(torch.autograd.grad(token_form, p), torch.autograd.grad(published, q))


def test_mirror_descent_ends_where_the_ratio_says_the_advantage():
    """Descent on one row: the sum of log r becomes A / temperature, and goes no further."""
    old, documents = torch.full((3,), -1.0, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    p, one = old.clone(), torch.ones_like(old)
    for _ in range(300):
        p.requires_grad_()
        mirror(p, old, -0.6 * one, one, documents=documents, temperature=0.5).loss.backward()
        p = (p - 0.2 * p.grad).detach()
    assert (p - old).sum().item() == pytest.approx(-0.6 / 0.5)


def test_pacs_begins_with_the_gradient_of_rloo():
    """PACS (arXiv:2509.02522): cross-entropy of the reward, 0 or 1, on a leave-one-out score of log-ratios, all 0."""
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    log_ratios = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    proxies = 0.3 * log_ratios  # beta
    score = proxies - (proxies.sum() - proxies) / 4
    torch.nn.functional.binary_cross_entropy_with_logits(score, rewards).backward()
    rloo = rewards - (rewards.sum() - rewards) / 4
    torch.testing.assert_close(log_ratios.grad, -0.3 / 5 * rloo)


def test_sapo_fades_on_both_sides_and_sooner_for_bad_samples():
    loss, slopes = get_loss("sapo"), {}
    for advantage in (1.0, -1.0):
        for ratio in (0.05, 1.0, 4.0):
            p = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
            one = torch.ones(1, dtype=torch.float64)
            loss(p, 0 * one, advantage * one, one, documents=DOCUMENTS[:1], turns=TURNS[:1]).loss.backward()
            slopes[advantage, ratio] = abs(p.grad.item()) / ratio
    assert slopes[1.0, 1.0] == slopes[-1.0, 1.0] == pytest.approx(1)
    for ratio, t in ((0.05, 1.0), (4.0, 1.0)):
        gate = 1 / (1 + math.exp(-t * (ratio - 1)))
        assert slopes[1.0, ratio] == pytest.approx(4 * gate * (1 - gate))
        assert slopes[-1.0, ratio] < slopes[1.0, ratio] < 1


def test_losses_of_single_tokens_say_so():
    assert {name for name in LOSSES if sees_rows(name)} == {
        "gspo",
        "turn_clip",
        "gmpo",
        "topr",
        "mirror",
        "turn_mirror",
    }
