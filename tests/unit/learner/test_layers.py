"""Recomputed and compiled layers compute the same, in less memory; heads in fp32; weights that stay in fp32."""

import copy

import pytest
import torch

from agent_rl.errors import ModelError
from agent_rl.learner import logprobs as module
from agent_rl.learner.config import LearnerConfig, LoraConfig, MemoryConfig
from agent_rl.learner.layers import decoder_layers
from agent_rl.learner.learner import Learner
from agent_rl.testing.memory import LiveStorage

RAGGED = [20, 30, 25, 9, 40, 70]


def weights_after_two_steps(model, rows, **memory):
    config = LearnerConfig(learning_rate=1e-2, token_budget=64, memory=MemoryConfig(**memory))
    learner = Learner(copy.deepcopy(model), config)
    for _ in range(2):
        learner.step(rows)
    return learner.weights()


def assert_equal(found, expected, atol):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_recomputed_layers_learn_the_same(make_model, make_rows, name):
    model, rows = make_model(name, torch.float64), make_rows(RAGGED)
    expected = weights_after_two_steps(model, rows)
    assert_equal(weights_after_two_steps(model, rows, activation_checkpointing=True), expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own libraries
def test_compiled_layers_learn_the_same_and_are_not_compiled_for_each_batch(make_model, make_rows):
    model, rows = make_model("qwen3", torch.float64), make_rows(RAGGED)
    plain, compiled = (
        Learner(copy.deepcopy(model), LearnerConfig(token_budget=64, memory=MemoryConfig(**memory)))
        for memory in ({}, {"compile": True, "activation_checkpointing": True})
    )
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    plain.step(rows)
    assert not counters["stats"]
    compiled.step(rows)
    for (name, weight), other in zip(plain.model.named_parameters(), compiled.model.parameters(), strict=True):
        assert (other.grad - weight.grad).norm() < 1e-6 * weight.grad.norm(), name  # norms are in fp32 in both
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0, dict(counters)
    for seed, lengths in enumerate([[17, 33, 51, 8, 3], [64], [5, 6, 7, 8, 9, 10], [40, 41]]):
        compiled.step(make_rows(lengths, seed=seed))
    assert counters["stats"]["unique_graphs"] == graphs


def test_recomputed_layers_keep_their_inputs_only(make_model, make_rows):
    """Without, each layer adds what its products need; with, each adds one hidden state per token."""
    rows, tokens, width = make_rows([256] * 4), 4 * 255, 32

    def peak(layers: int, **memory: bool) -> int:
        model = make_model("qwen3", num_hidden_layers=layers, max_position_embeddings=256)
        learner = Learner(model, LearnerConfig(token_budget=2048, memory=MemoryConfig(**memory)))
        learner.step(rows)  # gradients exist from here on
        with LiveStorage() as storage:
            learner.step(rows)
        return storage.peak

    hidden_state = tokens * width * 4
    saved, kept = (
        (peak(10, activation_checkpointing=on) - peak(2, activation_checkpointing=on)) / 8 for on in (True, False)
    )
    layer = sum(p.nbytes for p in decoder_layers(make_model("qwen3"))[0].parameters())
    assert saved <= 1.1 * hidden_state + 2 * layer  # with the layer's gradient, and the optimizer's scratch
    assert kept > 8 * hidden_state


def test_a_head_in_fp32_sees_what_one_in_bf16_rounds_away(make_model, make_rows, monkeypatch):
    seen = []
    softmax = module.head_logprobs

    def spy(head, hidden_KE, targets_K):
        seen.append(head.logits(hidden_KE[:1]))
        return softmax(head, hidden_KE, targets_K)

    monkeypatch.setattr(module, "head_logprobs", spy)
    model, rows = make_model("llama"), make_rows([40])
    with torch.no_grad():  # weights whose difference is lost in bf16: 1 and 1 + 2^-10
        model.lm_head.weight.copy_(torch.where(torch.arange(37) % 2 == 0, 1.0, 1 + 2**-10)[:, None].expand(37, 32))
    for fp32_head in (False, True):
        config = LearnerConfig(autocast=True, memory=MemoryConfig(fp32_head=fp32_head))
        Learner(copy.deepcopy(model), config).logprobs(rows)
    rounded, exact = seen
    assert rounded.dtype == exact.dtype == torch.float32
    assert (rounded[0] == rounded[0, 0]).all(), "even and odd tokens are told apart by the last bits only"
    assert (exact[0, 0::2] != exact[0, 1]).all()


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_what_is_trained_in_half_precision_is_kept_in_fp32(make_model, make_rows, lora):
    """A step of 1e-4 would be lost on most weights of bf16."""
    learner = Learner(make_model("llama", torch.bfloat16), LearnerConfig(learning_rate=1e-5, lora=lora))
    trained = {name: p for name, p in learner.model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    for _ in range(2):  # of adapters one factor starts at 0, and holds back the other's gradient
        learner.step(make_rows([20, 30]))
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert {s["exp_avg"].dtype for s in learner.state_dict()["optimizer"]["adamw"].values()} == {torch.float32}
    assert learner.config.autocast
    for name, parameter in trained.items():
        moved = (parameter != before[name]).float().mean()
        assert moved > (0.5 if "embed" in name else 0.95), name


def test_a_decoder_without_marked_layers_is_refused(make_model):
    model = make_model("qwen3")
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(ModelError, match="does not mark its decoder layers"):
        decoder_layers(model)
