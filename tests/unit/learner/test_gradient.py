"""The gradient is that of a plain padded forward in fp64, however rows are packed, ordered or accumulated."""

from dataclasses import replace

import pytest
import torch

from agent_rl.learner.attention import packed_attention
from agent_rl.learner.batch import pack
from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.learner.logprobs import trained_loss
from agent_rl.learner.objective import PolicyObjective
from agent_rl.learner.tensors import to_tensors

LENGTHS = [9, 40, 17, 3, 17, 41, 30, 2]
TEMPERATURE = 0.7
CLIP = {"clip_low": 0.1, "clip_high": 0.2}


def padded_gradient(model, rows):
    """One padded batch, an attention mask, all logits, a loop over tokens: nothing shared with the learner."""
    longest = max(len(row.token_ids_T) for row in rows)
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest)
    for i, row in enumerate(rows):
        ids[i, : len(row.token_ids_T)] = torch.tensor(row.token_ids_T)
        mask[i, : len(row.token_ids_T)] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits / TEMPERATURE
    total = sum(float(row.weights_T.sum()) for row in rows)
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(rows):
        for t in row.weights_T.nonzero()[0]:
            logprob = logits[i, t - 1].log_softmax(-1)[row.token_ids_T[t]]
            ratio = (logprob - float(row.rollout_logprobs_T[t])).exp()
            clipped = ratio.clamp(1 - CLIP["clip_low"], 1 + CLIP["clip_high"])
            advantage = float(row.advantages_T[t])
            loss = loss - float(row.weights_T[t]) / total * torch.minimum(ratio * advantage, clipped * advantage)
    loss.backward()
    return loss.item(), gradient(model)


def gradient(model):
    flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return flat


def packed_gradient(model, rows, token_budget):
    total = sum(float(row.weights_T.sum()) for row in rows)
    value = 0.0
    for batch in pack(rows, token_budget):
        tensors = to_tensors(batch, torch.device("cpu"), total)
        with packed_attention(model):
            loss = trained_loss(model, tensors, PolicyObjective(LearnerConfig(loss_options=CLIP)), TEMPERATURE).loss
            loss.backward()
        value += loss.item()
    return value, gradient(model)


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "qwen2"])
@pytest.mark.parametrize("token_budget", [1, 50, 10_000])
def test_packed_equals_padded(make_model, make_rows, architecture, token_budget):
    rows = make_rows(LENGTHS)
    expected_loss, expected = padded_gradient(make_model(architecture, torch.float64), rows)
    loss, actual = packed_gradient(make_model(architecture, torch.float64), rows, token_budget)
    assert expected.norm() > 1e-3
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert (actual - expected).norm() <= 1e-6 * expected.norm()


def test_row_order_does_not_matter(make_model, make_rows):
    rows = make_rows(LENGTHS)
    model = make_model("qwen3", torch.float64)
    _, forward = packed_gradient(model, rows, 64)
    _, backward = packed_gradient(model, rows[::-1], 64)
    assert (forward - backward).norm() <= 1e-6 * forward.norm()


@pytest.mark.parametrize("split_at", [5, 20])
def test_a_row_split_into_segments_has_the_same_gradient(make_model, make_rows, split_at):
    """The second segment repeats the whole context, as after a rewritten history, and trains only what follows."""
    [row] = make_rows([40])
    first, second = row.weights_T.copy(), row.weights_T.copy()
    first[split_at:] = 0
    second[:split_at] = 0
    model = make_model("qwen3", torch.float64)
    _, whole = packed_gradient(model, [row], 64)
    _, split = packed_gradient(model, [replace(row, weights_T=first), replace(row, weights_T=second)], 64)
    assert (whole - split).norm() <= 1e-6 * whole.norm()


def test_micro_batching_gives_the_same_weights(make_model, make_rows):
    rows = make_rows(LENGTHS)
    learners = [
        Learner(make_model("qwen3", torch.float64), LearnerConfig(token_budget=budget, learning_rate=1e-2))
        for budget in (1, 10_000)
    ]
    before = torch.cat([p.detach().flatten() for p in learners[0].model.parameters()])
    reports = [learner.step(rows) for learner in learners]
    after = [torch.cat([p.detach().flatten() for p in learner.model.parameters()]) for learner in learners]
    assert (after[0] - before).abs().max() > 1e-3
    torch.testing.assert_close(after[0], after[1], rtol=1e-6, atol=1e-9)
    assert reports[0] == pytest.approx(reports[1], rel=1e-6)
