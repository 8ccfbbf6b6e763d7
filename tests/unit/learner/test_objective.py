"""The objective as a whole: every combination by finite differences, and what interpolation and rewards amount to."""

import math
from dataclasses import replace

import pytest
import torch

from agent_rl.learner.config import DistillationConfig, ImitationLossConfig, LearnerConfig, LpRegConfig
from agent_rl.learner.imitation_losses import IMITATION_LOSSES
from agent_rl.learner.losses import LOSSES
from agent_rl.learner.low_probability import lp_reg, proxy_logprobs, unlikely
from agent_rl.learner.mismatch import CORRECTIONS
from agent_rl.learner.objective import Imitation, PolicyObjective
from agent_rl.learner.penalties import DIVERGENCES, EXACT_DIVERGENCES
from agent_rl.learner.proximal import interpolated, shares
from agent_rl.learner.tensors import FrozenTokens, TrainedTokens
from tests.unit.learner.differences import check_gradient

K = 24


@pytest.fixture
def tokens() -> TrainedTokens:
    generator = torch.Generator().manual_seed(3)
    normal = lambda: torch.randn(K, dtype=torch.float64, generator=generator)  # noqa: E731
    logprobs = -0.1 - normal().abs()
    return TrainedTokens(
        targets_K=torch.zeros(K, dtype=torch.long),
        weights_K=normal().abs() / K,
        advantages_K=normal(),
        rollout_logprobs_K=logprobs + 0.3 * normal(),
        old_logprobs_K=logprobs + 0.3 * normal(),
        corrections_K=normal().abs(),
        documents_K=torch.arange(K) // 8,
        turns_K=torch.arange(K) // 4,
        weight_versions_K=(torch.arange(K) % 3).double(),
        returns_K=torch.zeros(K, dtype=torch.float64),
        old_values_K=torch.zeros(K, dtype=torch.float64),
        reference=FrozenTokens(logprobs + 0.3 * normal()),
        teacher=FrozenTokens(logprobs + 0.3 * normal()),
        proxy_logprobs_K=torch.where(torch.arange(K) % 3 == 0, logprobs + 0.2, -torch.inf),
    )


def near(tokens: TrainedTokens) -> torch.Tensor:
    return tokens.old_logprobs_K + 0.2 * torch.sin(torch.arange(K).double())


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_interpolated_log_probs_and_their_corrections_are_held_still(tokens, loss, correction):
    aged = replace(tokens, proximal_shares_K=shares(3 - tokens.weight_versions_K, 0.5))
    objective = PolicyObjective(LearnerConfig(loss=loss, correction=correction, old_logprobs="interpolate"))
    entropy = torch.ones(K, dtype=torch.float64)
    assert check_gradient(lambda p: objective(aged, p, entropy).loss, near(tokens)).abs().max() > 1e-5


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("to", ["reference", "teacher"])
def test_what_is_added_has_the_gradient_of_its_finite_differences(tokens, divergence, to):
    drawn = (
        {"kl": divergence, "kl_coefficient": 0.7}
        if to == "reference"
        else {"distillation": DistillationConfig(teacher="t", coefficient=0.7, divergence=divergence)}
    )
    config = LearnerConfig(old_logprobs="recompute", lp_reg=LpRegConfig(), entropy_coefficient=0.1, **drawn)
    objective, entropy = PolicyObjective(config), torch.ones(K, dtype=torch.float64)
    check_gradient(lambda p: objective(tokens, p, entropy).loss, near(tokens))
    check_gradient(lambda h: objective(tokens, near(tokens), h).loss, entropy)
    assert f"{to}_kl" in objective(tokens, near(tokens), entropy).metrics


@pytest.mark.parametrize("name", IMITATION_LOSSES)
def test_imitation_has_the_gradient_of_its_finite_differences(tokens, name):
    objective = Imitation(ImitationLossConfig(loss=name, coefficient=0.3))
    entropy = torch.ones(K, dtype=torch.float64)
    check_gradient(lambda p: objective(tokens, p, entropy).loss, near(tokens))
    once = Imitation(ImitationLossConfig(loss=name, coefficient=1.0))(tokens, near(tokens), entropy).loss
    torch.testing.assert_close(objective(tokens, near(tokens), entropy).loss, 0.3 * once)


# --- interpolation --------------------------------------------------------------------------------------------------


def test_interpolation_is_exact_where_log_probs_move_in_a_straight_line(tokens):
    """Versions 0 to 2 sampled, the update starts from 3, and half of it is done."""
    now, slope = near(tokens), torch.linspace(-0.3, 0.3, K).double()
    ages = 3 - tokens.weight_versions_K
    sampled = now - (ages + 0.5) * slope
    torch.testing.assert_close(interpolated(now, sampled, shares(ages, 0.5)), now - 0.5 * slope)


def test_a_whole_version_later_the_share_is_the_published_one():
    ages = torch.tensor([0.0, 1.0, 3.0, 9.0])
    torch.testing.assert_close(shares(ages, 1.0), torch.tensor([0.0, 1 / 2, 3 / 4, 9 / 10]))


def test_before_the_first_update_the_policy_is_the_proximal_one(tokens):
    """As with recomputed log-probs, which then are the current ones, for any age; corrections too."""
    p, entropy = near(tokens), torch.ones(K, dtype=torch.float64)
    aged = replace(tokens, proximal_shares_K=shares(3 - tokens.weight_versions_K, 0.0))
    interpolating = PolicyObjective(LearnerConfig(correction="truncate", old_logprobs="interpolate"))
    factors = (p - tokens.rollout_logprobs_K).exp().clamp(max=2.0)
    exact = PolicyObjective(LearnerConfig(correction="truncate", old_logprobs="recompute"))
    expected = exact(replace(tokens, old_logprobs_K=p, corrections_K=factors), p, entropy)
    result = interpolating(aged, p, entropy)
    torch.testing.assert_close(result.loss, expected.loss)
    assert result.metrics["ratio"].item() == pytest.approx((tokens.weights_K * factors).sum().item())


def test_whole_rows_are_asked_for_where_somebody_looks_at_them():
    whole = {
        (loss, correction, old): PolicyObjective(
            LearnerConfig(loss=loss, correction=correction, old_logprobs=old)
        ).whole_rows
        for loss, correction, old in [
            ("ppo_clip", "mask_rows", "recompute"),
            ("ppo_clip", "mask_rows", "interpolate"),
            ("ppo_clip", "mask", "interpolate"),
            ("gspo", "none", "recompute"),
            ("turn_clip", "none", "rollout"),
        ]
    }
    assert list(whole.values()) == [False, True, False, True, True]


# --- distillation as a reward ---------------------------------------------------------------------------------------


def test_k1_alone_is_on_policy_distillation(tokens):
    """Advantages -(log p - log p_teacher), nothing of the task's."""
    taught = DistillationConfig(teacher="t", coefficient=2.0)
    config = LearnerConfig(loss="reinforce", distillation=taught, advantage_coefficient=0.0)
    p = tokens.old_logprobs_K.clone().requires_grad_()
    PolicyObjective(config)(tokens, p, torch.ones(K, dtype=torch.float64)).loss.backward()
    reverse = 2.0 * (tokens.old_logprobs_K - tokens.teacher.logprobs_K)
    torch.testing.assert_close(p.grad, tokens.weights_K * tokens.corrections_K * reverse)


def test_exact_divergences_wait_for_the_distributions(tokens):
    taught = DistillationConfig(teacher="t", divergence="exact_js", options={"beta": 0.3})
    objective = PolicyObjective(LearnerConfig(distillation=taught))
    assert objective.whole_vocabulary
    assert "teacher_kl" not in objective(tokens, near(tokens), torch.ones(K, dtype=torch.float64)).metrics
    assert set(EXACT_DIVERGENCES) == {"exact_reverse", "exact_forward", "exact_js"}


# --- Lp-Reg ---------------------------------------------------------------------------------------------------------


def test_the_proxy_is_the_policy_without_its_noise():
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.04, 0.01], [0.96, 0.01, 0.01, 0.01, 0.01]]).double()
    for target in range(5):
        found = proxy_logprobs(probs, probs[:, target].log(), min_p=0.1)
        for row, p in enumerate(probs.tolist()):
            kept = [q for q in p if q >= 0.1 * max(p)]
            expected = math.log(p[target] / sum(kept)) if p[target] in kept else -math.inf
            assert found[row].item() == pytest.approx(expected)


def test_only_the_least_likely_of_bad_tokens_are_chosen():
    logprobs = -torch.arange(10.0)
    advantages = torch.tensor([-1.0, 1.0] * 5)
    assert unlikely(logprobs, advantages, 0.4).nonzero().flatten().tolist() == [6, 8]
    assert unlikely(logprobs, advantages, 0.01).nonzero().flatten().tolist() == [8]
    assert not unlikely(logprobs, advantages.abs(), 0.5).any()


def test_a_bad_but_plausible_token_is_not_pushed_out():
    """Descent on a categorical policy that is told again and again that its third action is bad, its fourth too."""
    start = torch.tensor([3.0, 2.0, 0.0, -5.0], dtype=torch.float64)  # the fourth is noise

    def descend(coefficient: float) -> torch.Tensor:
        logits = start.clone()
        before = start.softmax(0)
        proxy = torch.stack([proxy_logprobs(before[None], before[[a]].log(), 0.02) for a in range(4)]).flatten()
        for _ in range(400):
            z = logits.clone().requires_grad_()
            logprobs = z.log_softmax(0)[2:]
            loss = logprobs.exp().detach() @ logprobs + coefficient * lp_reg(logprobs, proxy[2:]).sum()
            logits = logits - 0.5 * torch.autograd.grad(loss, z)[0]
        return logits.softmax(0)

    free, held = descend(0.0), descend(1.0)
    assert free[2] < 0.1 * start.softmax(0)[2] < 0.2 * held[2]
    assert held[3] < start.softmax(0)[3]


def test_no_gradient_flows_through_interpolated_log_probs():
    logprobs = torch.zeros(3, requires_grad=True)
    assert not interpolated(logprobs, torch.ones(3), torch.ones(3)).requires_grad


def test_the_gradient_of_shaped_imitation_is_highest_where_the_probability_is_gamma():
    probabilities = torch.tensor([0.001, 0.1, 0.999], dtype=torch.float64)
    logprobs = probabilities.log().requires_grad_()
    IMITATION_LOSSES["shaped"](logprobs, gamma=0.1).sum().backward()
    torch.testing.assert_close(logprobs.grad, -0.1 * probabilities / (probabilities + 0.1) ** 2)
    assert logprobs.grad is not None
    assert logprobs.grad.argmin() == 1


def test_the_gradient_of_rl_plus_is_its_ratio_times_the_surprise():
    p, old = torch.tensor([0.1, 0.9]).double(), torch.tensor([0.2, 0.8]).double()
    logprobs = p.log().requires_grad_()
    IMITATION_LOSSES["rl_plus"](logprobs, old_logprobs=old.log(), gamma=0.5).sum().backward()
    torch.testing.assert_close(logprobs.grad, -((1 - p) ** 0.5) * 2 * p / (old + (old + 1) / 2))
