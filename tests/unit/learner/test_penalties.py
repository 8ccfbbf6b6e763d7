"""Divergences against their exact gradients, and what the learner does with them and with the entropy bonus."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agent_rl.errors import NotFoundError
from agent_rl.learner.config import LearnerConfig, LoraConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.logprobs import trained_loss
from agent_rl.learner.penalties import DIVERGENCES, get_divergence

REFERENCE = torch.tensor([0.2, 0.3, 0.1, 0.4], dtype=torch.float64)
LOGITS = torch.tensor([0.5, -0.4, 1.2, 0.1], dtype=torch.float64)


def exact(name, p):
    if name in ("k1", "k2"):
        return (p * (p / REFERENCE).log()).sum()
    if name in ("k3", "forward"):
        return (REFERENCE * (REFERENCE / p).log()).sum()
    middle = (p + REFERENCE) / 2
    return ((p * (p / middle).log()).sum() + (REFERENCE * (REFERENCE / middle).log()).sum()) / 2


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_expected_gradient_is_the_divergences(name):
    logits = LOGITS.clone().requires_grad_()
    exact(name, logits.softmax(0)).backward()
    expected, logits.grad = logits.grad, None
    logprobs = logits.log_softmax(0)
    terms = get_divergence(name)(logprobs, REFERENCE.log())
    (logprobs.exp().detach() * terms).sum().backward()  # the mean over samples of the policy
    torch.testing.assert_close(logits.grad, expected)


def test_k3_is_an_unbiased_and_never_negative_estimate():
    logprobs = LOGITS.log_softmax(0)
    terms = get_divergence("k3")(logprobs, REFERENCE.log())
    assert (terms >= 0).all()
    torch.testing.assert_close((logprobs.exp() * terms).sum(), exact("k2", logprobs.exp()))


def test_an_unknown_divergence():
    with pytest.raises(NotFoundError, match="Unknown divergence 'k4'"):
        get_divergence("k4")


def neutral(rows):
    """Rows that teach nothing by themselves."""
    return [replace(row, advantages_T=np.zeros_like(row.advantages_T)) for row in rows]


def flat(model):
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
@pytest.mark.parametrize("kl", sorted(DIVERGENCES))
def test_a_penalty_pulls_back_to_where_training_began(make_model, make_rows, kl, lora):
    rows = make_rows([20, 30, 25])
    options = {"learning_rate": 3e-3, "old_logprobs": "recompute", "lora": lora}
    learner = Learner(make_model("qwen3"), LearnerConfig(kl=kl, kl_coefficient=1.0, **options))
    assert learner.step(neutral(rows))["reference_kl"] == pytest.approx(0, abs=1e-9)
    pushed = [replace(row, advantages_T=30 * row.advantages_T) for row in rows]
    for _ in range(5):
        away = learner.step(pushed)["reference_kl"]
    for _ in range(15):
        back = learner.step(neutral(rows))["reference_kl"]
    assert away > 1e-4
    assert back < away / 3


def test_without_a_coefficient_there_is_no_reference(make_model, make_rows):
    learner = Learner(make_model("qwen3"), LearnerConfig())
    assert "reference_kl" not in learner.step(make_rows([20]))


def test_the_reference_is_left_alone(make_model, make_rows):
    learner = Learner(make_model("qwen3"), LearnerConfig(kl_coefficient=0.1, learning_rate=1e-2))
    reference = learner._prepare._frozen["reference"].model
    before = flat(reference)
    learner.step(make_rows([20, 30]))
    assert torch.equal(flat(reference), before)
    assert not torch.equal(flat(learner.model), before)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_entropy_bonus_moves_entropy(make_model, make_rows, sign):
    rows = neutral(make_rows([20, 30]))
    learner = Learner(
        make_model("qwen3"),
        LearnerConfig(entropy_coefficient=sign * 0.1, learning_rate=1e-3, old_logprobs="recompute"),
    )
    entropies = [learner.step(rows)["entropy"] for _ in range(5)]
    assert sign * (entropies[-1] - entropies[0]) > 0


def test_the_entropys_gradient_is_exact(make_model, make_rows):
    """Against finite differences along a random direction."""
    learner = Learner(make_model("qwen3", torch.float64), LearnerConfig(entropy_coefficient=1.0))
    [batch] = learner._pack(neutral(make_rows([20, 30])))
    parameters = list(learner.model.parameters())
    torch.manual_seed(1)
    direction = [torch.randn_like(parameter) for parameter in parameters]

    def entropy(shift, gradient=False):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.add_(d, alpha=shift)
        result = trained_loss(learner.model, batch, learner._objective, 1.0)
        if gradient:
            result.loss.backward()
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.sub_(d, alpha=shift)
        return result.metrics["entropy"].item()

    entropy(0.0, gradient=True)
    along = -sum((p.grad * d).sum() for p, d in zip(parameters, direction, strict=True)).item()
    assert along == pytest.approx((entropy(1e-3) - entropy(-1e-3)) / 2e-3, rel=1e-3)  # norms are fp32
