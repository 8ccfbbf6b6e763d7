"""The chunked head against all logits at once in fp64: values, gradients and memory."""

import weakref
from collections import Counter
from dataclasses import MISSING, fields, replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agent_rl.learner import head as module
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.head import Head, head_logprobs, head_loss
from agent_rl.learner.losses import LOSSES
from agent_rl.learner.mismatch import CORRECTIONS, get_correction
from agent_rl.learner.objective import Likelihood, PolicyObjective
from agent_rl.learner.penalties import DIVERGENCES
from agent_rl.learner.tensors import FrozenTokens, TrainedTokens

K, V, E = 60, 83, 5
TEMPERATURE = 0.7
OBJECTIVES = {
    "likelihood": Likelihood(),
    **{name: PolicyObjective(LearnerConfig(loss=name)) for name in LOSSES},
    **{kl: PolicyObjective(LearnerConfig(kl=kl, kl_coefficient=0.3)) for kl in DIVERGENCES},
    "entropy": PolicyObjective(LearnerConfig(entropy_coefficient=0.2)),
    "all": PolicyObjective(LearnerConfig(loss="gspo", kl_coefficient=0.3, entropy_coefficient=-0.2)),
}


def make_inputs(dtype=torch.float64, bias=True):
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()

    return leaf(K, E), Head(leaf(V, E), leaf(V) if bias else None, TEMPERATURE, dtype)


def make_tokens(hidden, head, correction="none"):
    """Old, rollout and reference log-probs near enough to the present ones that some ratios are clipped, some not."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(0, V, (K,), generator=generator)
    own = dense(hidden, head, targets)[0].detach()
    noisy = [own + 0.3 * torch.randn(K, generator=generator, dtype=own.dtype) for _ in range(3)]
    documents = torch.arange(K) // 13
    weights = torch.rand(K, generator=generator)
    advantages = torch.randn(K, generator=generator)
    factors = get_correction(correction)(noisy[1], noisy[0], documents)
    return trained(
        targets,
        weights_K=weights / weights.sum(),
        advantages_K=advantages,
        rollout_logprobs_K=noisy[0],
        old_logprobs_K=noisy[1],
        corrections_K=factors,
        documents_K=documents,
        turns_K=torch.arange(K) // 5,
        reference=FrozenTokens(noisy[2]),
    )


def trained(targets, **known):
    """Tokens of which only some things are known; all else is 1."""
    ones = torch.ones(len(targets))
    names = (field.name for field in fields(TrainedTokens) if field.default is MISSING)
    return TrainedTokens(**{**dict.fromkeys(names, ones), "targets_K": targets, **known})


def dense(hidden, head, targets):
    logits = torch.nn.functional.linear(hidden, head.weight_VE, head.bias_V) / head.temperature
    distribution = torch.distributions.Categorical(logits=logits)
    return distribution.log_prob(targets), distribution.entropy()


def gradients(loss, hidden, head):
    return torch.autograd.grad(loss, [t for t in (hidden, head.weight_VE, head.bias_V) if t is not None])


class Operations(TorchDispatchMode):
    """How often each operation ran, and the sizes of all tensors that they returned."""

    def __init__(self):
        super().__init__()
        self.calls, self.sizes = Counter(), set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls[str(function)] += 1
        self.sizes |= {tensor.numel() for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)}
        return result


@pytest.fixture(params=[1, 7, K])
def chunk(request, monkeypatch):
    monkeypatch.setattr(module, "LOGITS_PER_CHUNK", request.param * V)
    monkeypatch.setattr(module, "LOGITS_PER_BLOCK", 3 * V)
    return request.param


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_the_dense_value_and_gradient(name, chunk):
    hidden, head = make_inputs()
    tokens, objective = make_tokens(hidden, head), OBJECTIVES[name]
    expected = objective(tokens, *dense(hidden, head, tokens.targets_K))
    actual = head_loss(head, hidden, tokens, objective)
    torch.testing.assert_close(actual.loss, expected.loss)
    torch.testing.assert_close(actual.metrics, {n: v.detach() for n, v in expected.metrics.items()})
    expected_gradients = gradients(expected.loss, hidden, head)
    assert min(gradient.norm() for gradient in expected_gradients) > 1e-3
    torch.testing.assert_close(gradients(actual.loss, hidden, head), expected_gradients)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_every_correction_has_the_dense_value_and_gradient(correction, chunk):
    hidden, head = make_inputs()
    tokens, objective = make_tokens(hidden, head, correction), OBJECTIVES["ppo_clip"]
    assert bool((tokens.corrections_K != 1).any()) == (correction != "none")
    expected = objective(tokens, *dense(hidden, head, tokens.targets_K)).loss
    actual = head_loss(head, hidden, tokens, objective).loss
    torch.testing.assert_close(gradients(actual, hidden, head), gradients(expected, hidden, head))


def test_logprobs_and_entropies_are_the_dense_ones(chunk):
    hidden, head = make_inputs()
    targets = torch.arange(K)
    torch.testing.assert_close(head_logprobs(head, hidden, targets), dense(hidden, head, targets))


def test_the_gradient_follows_what_the_loss_is_multiplied_by():
    hidden, head = make_inputs()
    tokens = make_tokens(hidden, head)
    once, thrice = (head_loss(head, hidden, tokens, Likelihood()).loss for _ in range(2))
    expected = [3 * gradient for gradient in gradients(once, hidden, head)]
    torch.testing.assert_close(list(gradients(3 * thrice, hidden, head)), expected)


def test_certain_and_impossible_tokens_are_finite():
    """Probabilities that are 1 or underflow to 0 in fp32, and the entropy's p log p there."""
    hidden, head = make_inputs(torch.float32)
    with torch.no_grad():
        hidden *= 1000
    tokens, objective = make_tokens(hidden, head), PolicyObjective(LearnerConfig(entropy_coefficient=1.0))
    own, _ = head_logprobs(head, hidden, tokens.targets_K)
    result = head_loss(head, hidden, replace(tokens, old_logprobs_K=own), objective)
    assert own.min() < -100
    assert all(gradient.isfinite().all() for gradient in gradients(result.loss, hidden, head))


@pytest.mark.parametrize(("frozen", "products"), [(False, 2), (True, 1)])
def test_frozen_weights_cost_no_product(frozen, products):
    hidden, head = make_inputs(bias=False)
    expected = gradients(head_loss(head, hidden, make_tokens(hidden, head), Likelihood()).loss, hidden, head)[0]
    head.weight_VE.requires_grad_(not frozen)
    with Operations() as seen:
        loss = head_loss(head, hidden, make_tokens(hidden, head), Likelihood()).loss
    assert seen.calls["aten.addmm_.default"] == products
    torch.testing.assert_close(torch.autograd.grad(loss, [hidden])[0], expected)


@pytest.mark.parametrize(("dtype", "roundings"), [(torch.float32, 10), (torch.bfloat16, 2)])
def test_lower_precision_is_as_good_as_its_inputs(dtype, roundings, chunk):
    """The softmax, the sums over chunks and the log-probs are fp32: only the products round."""
    hidden, head = make_inputs(dtype)
    exact_hidden = hidden.detach().double().requires_grad_()
    exact = Head(*(t.detach().double().requires_grad_() for t in (head.weight_VE, head.bias_V)), TEMPERATURE, dtype)
    tokens = make_tokens(exact_hidden, exact)
    result = head_loss(head, hidden, tokens, OBJECTIVES["ppo_clip"])
    expected = OBJECTIVES["ppo_clip"](tokens, *dense(exact_hidden, exact, tokens.targets_K)).loss
    assert head_logprobs(head, hidden, tokens.targets_K)[0].dtype == torch.float32
    pairs = zip(gradients(result.loss, hidden, head), gradients(expected, exact_hidden, exact), strict=True)
    for actual, reference in pairs:
        assert actual.dtype == dtype
        error = (actual.double() - reference).norm() / reference.norm()
        assert error < roundings * torch.finfo(dtype).eps


def test_sums_over_chunks_are_not_rounded_to_bf16(monkeypatch):
    """The same token 600 times: in bf16 a sum no longer grows once it is 256 times as large as what is added."""
    monkeypatch.setattr(module, "LOGITS_PER_CHUNK", V)
    hidden, head = make_inputs(torch.bfloat16)
    targets = torch.zeros(600, dtype=torch.long)
    tokens = trained(targets)
    repeated = hidden[:1].detach().expand(600, E)
    one, many = (
        torch.autograd.grad(head_loss(head, repeated[:k], tokens.part(slice(k)), Likelihood()).loss, [head.weight_VE])[
            0
        ]
        for k in (1, 600)
    )
    torch.testing.assert_close(many.float(), 600 * one.float(), rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("name", ["ppo_clip", "all"])
def test_no_tensor_holds_a_quarter_of_all_logits(name, monkeypatch):
    monkeypatch.setattr(module, "LOGITS_PER_CHUNK", 7 * V)
    hidden, head = make_inputs()
    tokens = make_tokens(hidden, head)
    with Operations() as seen:
        head_logprobs(head, hidden, tokens.targets_K)
        head_loss(head, hidden, tokens, OBJECTIVES[name]).loss.backward()
    assert 7 * V in seen.sizes
    assert max(seen.sizes) < K * V / 4


def test_one_chunk_of_logits_lives_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "LOGITS_PER_CHUNK", 10 * V)
    monkeypatch.setattr(module, "LOGITS_PER_BLOCK", V)
    hidden, head = make_inputs(bias=False)
    tokens = make_tokens(hidden, head)
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    logits, most = Head.logits, 0

    def recorded(head: Head, hidden: torch.Tensor) -> torch.Tensor:
        nonlocal most
        result = logits(head, hidden)
        alive.add(result)
        most = max(most, len(alive))
        return result

    monkeypatch.setattr(Head, "logits", recorded)
    head_loss(head, hidden, tokens, OBJECTIVES["all"])
    assert most == 1
