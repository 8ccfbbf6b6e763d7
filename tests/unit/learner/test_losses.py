import math

import pytest
import torch

from agent_rl.errors import ConfigError, NotFoundError
from agent_rl.learner.loss_result import k3
from agent_rl.learner.losses import cispo, get_loss, ppo_clip, reinforce
from agent_rl.learner.mismatch import get_correction

CLIP = {"clip_low": 0.2, "clip_high": 0.3}


def tokens(count=200):
    generator = torch.Generator().manual_seed(0)
    logprobs = -3 * torch.rand(count, dtype=torch.float64, generator=generator)
    old = logprobs + 0.4 * torch.randn(count, dtype=torch.float64, generator=generator)
    advantages = torch.randn(count, dtype=torch.float64, generator=generator)
    weights = torch.rand(count, dtype=torch.float64, generator=generator)
    return logprobs, old, advantages, weights / weights.sum()


def naive_ppo(logprobs, old, advantages, weights):
    loss = clipped_weight = kl = mean_ratio = 0.0
    for p, q, a, w in zip(*(x.tolist() for x in (logprobs, old, advantages, weights)), strict=True):
        ratio = math.exp(p - q)
        limit = 1.3 if a > 0 else 0.8
        is_clipped = ratio > limit if a > 0 else ratio < limit
        loss -= w * (limit if is_clipped else ratio) * a
        clipped_weight += w * is_clipped
        mean_ratio += w * ratio
        kl += w * (ratio - 1 - math.log(ratio))
    return loss, {"clip_fraction": clipped_weight, "ratio": mean_ratio, "approx_kl": kl}


def test_ppo_clip_equals_the_naive_loop():
    batch = tokens()
    result = ppo_clip(*batch, **CLIP)
    loss, metrics = naive_ppo(*batch)
    assert result.loss.item() == pytest.approx(loss, rel=1e-12)
    assert {name: value.item() for name, value in result.metrics.items()} == pytest.approx(metrics, rel=1e-9)
    assert 0.1 < metrics["clip_fraction"] < 0.9


@pytest.mark.parametrize(
    ("advantage", "ratio", "moves"),
    [(1, 1.29, 1), (1, 1.31, 0), (1, 0.5, 1), (-1, 0.81, 1), (-1, 0.79, 0), (-1, 2.0, 1)],
)
def test_the_clip_only_stops_moves_in_the_direction_of_the_advantage(advantage, ratio, moves):
    logprobs = torch.tensor([-1.0 + math.log(ratio)], requires_grad=True)
    one = torch.ones(1)
    ppo_clip(logprobs, torch.tensor([-1.0]), advantage * one, one, **CLIP).loss.backward()
    assert logprobs.grad.item() == pytest.approx(-advantage * ratio * moves)


def test_on_policy_gradient_is_reinforce():
    logprobs, _, advantages, weights = tokens()
    logprobs.requires_grad_()
    ppo_clip(logprobs, logprobs.detach(), advantages, weights, **CLIP).loss.backward()
    torch.testing.assert_close(logprobs.grad, -weights * advantages)


def test_losses_add_up_over_parts():
    batch = tokens()
    whole = ppo_clip(*batch, **CLIP)
    parts = [ppo_clip(*(x[s] for x in batch), **CLIP) for s in (slice(0, 30), slice(30, None))]
    torch.testing.assert_close(parts[0].loss + parts[1].loss, whole.loss)
    for name, value in whole.metrics.items():
        torch.testing.assert_close(parts[0].metrics[name] + parts[1].metrics[name], value)


def test_k3_is_an_unbiased_estimate_of_the_divergence():
    policy, reference = torch.tensor([0.1, 0.6, 0.3]), torch.tensor([0.2, 0.3, 0.5])
    expected = (reference * (reference / policy).log()).sum()
    torch.testing.assert_close((reference * k3(policy.log(), reference.log())).sum(), expected)


def test_unknown_loss():
    with pytest.raises(NotFoundError, match=r"Unknown loss 'ppo'\. Did you mean 'ppo_clip'\?"):
        get_loss("ppo")


def test_dual_clip_bounds_what_a_bad_action_can_do():
    p = torch.tensor([math.log(50.0)], requires_grad=True)
    zero, one = torch.zeros(1), torch.ones(1)
    plain = ppo_clip(p, zero, -one, one).loss
    bounded = ppo_clip(p, zero, -one, one, dual_clip=3.0).loss
    assert plain.item() == pytest.approx(50.0)
    assert bounded.item() == pytest.approx(3.0)
    bounded.backward()
    assert p.grad.item() == 0.0


def test_cispo_keeps_the_gradient_of_clipped_tokens():
    p = torch.tensor([math.log(50.0)], requires_grad=True)
    zero, one = torch.zeros(1), torch.ones(1)
    cispo(p, zero, one, one, clip_high=4.0).loss.backward()
    assert p.grad.item() == pytest.approx(-5.0)


def test_reinforce_does_not_look_at_the_sampler():
    logprobs, old, advantages, weights = tokens()
    logprobs.requires_grad_()
    reinforce(logprobs, old, advantages, weights).loss.backward()
    torch.testing.assert_close(logprobs.grad, -weights * advantages)


def test_corrections():
    rho = torch.tensor([0.1, 1.0, 3.0, 10.0, 1.1, 1.2], dtype=torch.float64)
    rollout = torch.full_like(rho, -1.0)
    documents = torch.tensor([0, 0, 0, 0, 1, 1])

    def factor(name, **options):
        return get_correction(name, options)(rho.log() + rollout, rollout, documents).tolist()

    assert factor("none") == [1.0] * 6
    assert factor("importance") == pytest.approx(rho.tolist())
    assert factor("truncate") == pytest.approx([0.1, 1, 2, 2, 1.1, 1.2])
    assert factor("truncate", at=1.05) == pytest.approx([0.1, 1, 1.05, 1.05, 1.05, 1.05])
    assert factor("mask") == pytest.approx([0, 1, 3, 0, 1.1, 1.2])
    assert factor("mask_rows", high=1.3) == pytest.approx([0, 0, 0, 0, 1.1, 1.2])  # 3^(1/4) = 1.32


def test_wrong_options_are_refused():
    with pytest.raises(NotFoundError, match=r"option of the loss ppo_clip 'clip_hihg'. Did you mean 'clip_high'\?"):
        get_loss("ppo_clip", {"clip_hihg": 0.3})
    with pytest.raises(ConfigError, match="Bad option of the correction mask"):
        get_correction("mask", {"low": "much"})
    with pytest.raises(NotFoundError, match="Unknown correction 'icepop'"):
        get_correction("icepop")
