import math

import pytest
import torch

from agent_rl.errors import ConfigError, NotFoundError
from agent_rl.learner.loss_result import k3
from agent_rl.learner.losses import cispo, get_loss, nft, ppo_clip, reinforce
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


# --- NFT ------------------------------------------------------------------------------------------------------------

SHARES = {"easy": 0.875, "even": 0.5, "hard": 0.125}  # of successes, one in eight apart


def nft_tokens():
    """Tokens of prompts with these shares, good and bad answers, and what `dr_grpo` says of rewards 0 and 1."""
    torch.manual_seed(0)
    shares = torch.tensor([share for share in SHARES.values() for _ in range(16)], dtype=torch.float64)
    rewards = (torch.arange(48) % 2).double()
    logprobs = -0.1 - torch.rand(48, dtype=torch.float64)
    old = logprobs + 0.5 * torch.randn(48, dtype=torch.float64)
    return logprobs.requires_grad_(), old, rewards, shares


@pytest.mark.parametrize("least", [1.0, 0.2])
def test_nft_is_the_published_sum_over_tokens(least):
    """Equation 10 with the prompt's weight 1 - q, token by token, and max_v's gradient: that of x / max(x, least)."""
    logprobs, old, rewards, shares = nft_tokens()
    weights = torch.linspace(0.1, 1, 48, dtype=torch.float64)
    result = nft(logprobs, old, rewards - shares, weights, least=least)
    (gradient,) = torch.autograd.grad(result.loss, logprobs)
    loss, slopes, held = 0.0, [], 0.0
    zipped = zip(*(x.tolist() for x in (logprobs.detach(), old, rewards, shares, weights)), strict=True)
    for p, q, reward, share, weight in zipped:
        ratio = math.exp(p - q)
        x = (1 - share * ratio) / (1 - share)
        loss -= weight * (1 - share) * math.log(ratio if reward else max(x, least))
        slope = 1.0 if reward else -share * ratio / (1 - share) / max(x, least)
        slopes.append(-weight * (1 - share) * slope)
        held += weight * (not reward and x < least)
    assert result.loss.item() == pytest.approx(loss, rel=1e-12)
    assert gradient.tolist() == pytest.approx(slopes, rel=1e-9)
    assert result.metrics["clip_fraction"].item() == pytest.approx(held)
    assert 0 < held < weights.sum() / 2


def test_nft_s_push_against_a_bad_token_that_became_likelier_is_bounded():
    """By `least`: the odds of the old policy times the ratio, over it; one that became unlikely fades."""
    slopes = {}
    for least in (1.0, 0.1):
        for ratio in (0.1, 1.0, 1.9):
            p = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
            one = torch.ones(1, dtype=torch.float64)
            nft(p, 0 * one, -0.5 * one, one, least=least).loss.backward()
            slopes[least, ratio] = p.grad.item()
    assert slopes[1.0, 1.0] == slopes[0.1, 1.0] == pytest.approx(0.5)
    assert slopes[1.0, 1.9] == pytest.approx(0.5 * 1.9)
    assert slopes[0.1, 1.9] == pytest.approx(0.5 * 1.9 / 0.1)
    assert slopes[1.0, 0.1] == slopes[0.1, 0.1] == pytest.approx(0.5 * 0.1 / 1.9)


def test_nft_of_other_advantages_still_starts_as_the_policy_gradient():
    """As those of `grpo`, which know no share of successes: nothing is infinite, whatever they are."""
    advantages = torch.tensor([-7.0, -1.0, 0.0, 3.0], dtype=torch.float64)
    for move, slopes in ((0.0, [7.0, 1.0, 0.0, -3.0]), (1.0, None), (-1.0, None)):
        p = torch.full((4,), move, dtype=torch.float64, requires_grad=True)
        nft(p, torch.zeros_like(p), advantages, torch.ones_like(p)).loss.backward()
        assert p.grad.isfinite().all()
        if slopes is not None:
            assert p.grad.tolist() == pytest.approx(slopes)


def test_nft_needs_a_bound():
    with pytest.raises(ConfigError, match="greater than 0"):
        get_loss("nft", {"least": 0.0})
