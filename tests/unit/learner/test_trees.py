"""Rows that begin alike: what is computed does not depend on whether they share it, nor on how trees are cut."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from agent_rl.learner import critic as critic_module
from agent_rl.learner import learner as learner_module
from agent_rl.learner.attention import language_head, make_layout, packed_attention, packed_hidden
from agent_rl.learner.batch import pack
from agent_rl.learner.critic import Critic, CriticConfig
from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.learner.tensors import to_tensors

ALONE = 10**9  # no run is this long: only rows that another one begins with are shared
CPU = torch.device("cpu")


def branched(make_rows, shapes):
    """Rows of (row to begin like, tokens of it, length); those to begin like come first."""
    rows = make_rows([length for _, _, length in shapes], seed=1)
    for i, (origin, shared, _) in enumerate(shapes):
        rows[i].token_ids_T[:shared] = rows[origin].token_ids_T[:shared]
    return rows


SHAPES = {
    "group": [(0, 0, 60), *[(0, 40, 50 + i) for i in range(5)], (0, 0, 30)],
    "forks": [(0, 0, 70), (0, 60, 90), (0, 20, 64), (2, 40, 80), (2, 41, 77), (3, 70, 90), (1, 5, 20)],
    "steps": [(0, 0, 90), *[(0, depth, depth + 20) for depth in range(10, 80, 10)]],
    "chain": [(0, 0, 90), *[(0, depth, depth) for depth in range(20, 90, 10)]],
    "identical": [(0, 0, 40), (0, 40, 40), (0, 40, 40), (0, 20, 45)],
    "prefix": [(0, 0, 70), (0, 30, 30), (0, 30, 50), (2, 50, 50)],
}


def loss_of(logits_K, targets, weights, advantages):
    logprobs_K = logits_K.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    return -(weights * advantages * logprobs_K).sum()


def row_by_row(rows):
    return [batch for row in rows for batch in pack([row], 1)]


def packed_gradient(model, batches):
    """The loss, its gradient, and how many tokens were forwarded."""
    total, tokens = 0.0, 0
    for packed in batches:
        batch = to_tensors(packed, CPU)
        with packed_attention(model):
            hidden_NE = packed_hidden(model, batch.token_ids_N, batch.position_ids_N, batch.layout)
        logits_KV = language_head(model)(hidden_NE.index_select(0, batch.sources_K))
        trained = batch.trained
        loss = loss_of(logits_KV, trained.targets_K, trained.weights_K, trained.advantages_K)
        loss.backward()
        total, tokens = total + loss.item(), tokens + len(packed.token_ids_N)
    return total, gradient(model), tokens


def padded_gradient(model, rows):
    longest = max(len(row.token_ids_T) for row in rows)
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest)
    for i, row in enumerate(rows):
        ids[i, : len(row.token_ids_T)] = torch.from_numpy(row.token_ids_T)
        mask[i, : len(row.token_ids_T)] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(rows):
        trained = torch.from_numpy(row.weights_T.nonzero()[0])
        arrays = (torch.from_numpy(a)[trained] for a in (row.token_ids_T, row.weights_T, row.advantages_T))
        targets, weights, advantages = arrays
        loss = loss + loss_of(logits[i, trained - 1], targets.long(), weights, advantages)
    loss.backward()
    return loss.item(), gradient(model)


def gradient(model):
    flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return flat


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("architecture", ["qwen3", "llama", "qwen2"])
def test_tree_equals_flat_equals_padded(make_model, make_rows, architecture, shape):
    rows = branched(make_rows, SHAPES[shape])
    model = make_model(architecture, torch.float64).eval()
    expected_loss, expected = padded_gradient(model, rows)
    flat_loss, flat, raw = packed_gradient(model, row_by_row(rows))
    assert expected.norm() > 1e-3
    assert (flat - expected).norm() <= 1e-6 * expected.norm()
    forwarded = []
    for token_budget, min_shared in ((10_000, 1), (10_000, 16), (100, 1), (1, 1)):
        loss, tree, tokens = packed_gradient(model, pack(rows, token_budget, min_shared=min_shared))
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        assert loss == pytest.approx(flat_loss, rel=1e-6)
        assert (tree - expected).norm() <= 1e-6 * expected.norm()
        forwarded.append(tokens)
    assert forwarded[0] <= forwarded[2] <= raw
    assert forwarded[0] < 0.8 * raw


def test_many_heads_of_any_grouping(make_model, make_rows):
    rows = branched(make_rows, SHAPES["forks"])
    for heads, groups in ((4, 4), (4, 1), (8, 2)):
        model = make_model("llama", torch.float64, num_attention_heads=heads, num_key_value_heads=groups).eval()
        _, flat, _ = packed_gradient(model, row_by_row(rows))
        _, tree, _ = packed_gradient(model, pack(rows, 10_000, min_shared=1))
        assert (tree - flat).norm() <= 1e-6 * flat.norm()


def test_low_precision_stays_close(make_model, make_rows):
    """Parts are joined in fp32: a tree in bf16 is no further from the truth than rows alone are."""
    rows = branched(make_rows, SHAPES["steps"])
    model = make_model("qwen3", torch.float64).eval()
    _, exact, _ = packed_gradient(model, row_by_row(rows))
    model = model.to(torch.bfloat16)
    errors = []
    for batches in (row_by_row(rows), pack(rows, 10_000, min_shared=1)):
        _, found, _ = packed_gradient(model, batches)
        errors.append(((found.double() - exact).norm() / exact.norm()).item())
    assert errors[1] < 1.5 * errors[0] < 0.1


def test_autocast_reaches_trees(make_model, make_rows):
    model = make_model("qwen3").eval()
    rows = branched(make_rows, SHAPES["group"])
    [tree] = [to_tensors(batch, CPU) for batch in pack(rows, 10_000, min_shared=1)]
    with packed_attention(model), torch.autocast("cpu", torch.bfloat16):
        hidden = packed_hidden(model, tree.token_ids_N, tree.position_ids_N, tree.layout)
    with packed_attention(model):
        exact = packed_hidden(model, tree.token_ids_N, tree.position_ids_N, tree.layout)
    assert 0 < (hidden - exact).norm() < 0.05 * exact.norm()


def apart(monkeypatch):
    for module in (learner_module, critic_module):
        monkeypatch.setattr(module, "pack", partial(pack, min_shared=ALONE))


def weights_of(learner):
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])


@pytest.mark.parametrize("options", [{}, {"epochs": 2, "minibatches": 2, "old_logprobs": "recompute"}])
def test_a_learners_step_does_not_depend_on_sharing(make_model, make_rows, monkeypatch, options):
    rows = branched(make_rows, SHAPES["group"])
    config = LearnerConfig(learning_rate=1e-3, **options)

    def step():
        learner = Learner(make_model("qwen3", torch.float64), config)
        report = learner.step(rows, [0] * 6 + [1])
        return report, weights_of(learner)

    (report, shared), (again, same) = step(), step()
    assert report == again
    assert torch.equal(shared, same)
    apart(monkeypatch)
    flat_report, flat = step()
    assert report.pop("tokens") < 0.7 * flat_report.pop("tokens")
    assert report == pytest.approx(flat_report, rel=1e-5, abs=1e-9)
    torch.testing.assert_close(shared, flat, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", ["squared", "hl_gauss"])
def test_a_critic_does_not_depend_on_sharing(make_model, make_rows, monkeypatch, loss):
    rows = branched(make_rows, SHAPES["prefix"] + [(0, 10, 20)])
    model = make_model("qwen3", torch.float64)
    found = []
    for _ in range(2):
        critic = Critic(copy.deepcopy(model), CriticConfig(learning_rate=1e-2, loss=loss, token_budget=100))
        torch.manual_seed(0)
        torch.nn.init.normal_(critic.head.weight)
        before = critic.values([row.token_ids_T for row in rows])
        critic.step(rows, [0] * len(rows))
        found.append((before, critic.values([row.token_ids_T for row in rows])))
        apart(monkeypatch)
    for values, others in zip(*found, strict=True):
        for row, ours, theirs in zip(rows, values, others, strict=True):
            assert len(ours) == len(row.token_ids_T) + 1
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found[0][0][0], found[0][1][0])


def test_values_of_rows_that_repeat_share_their_forward_pass(make_model, make_rows):
    critic = Critic(make_model("qwen3"), CriticConfig(token_budget=100))
    [row] = make_rows([90])
    seen = []
    critic.model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    critic.values([row.token_ids_T[:length] for length in range(20, 91, 10)])
    assert seen == [90]


@pytest.mark.parametrize("shape", ["group", "steps", "chain"])
def test_work_is_that_of_the_distinct_tokens(make_model, make_rows, shape):
    rows = branched(make_rows, SHAPES[shape])
    model = make_model("qwen3").eval()
    areas: list[int] = []

    def attention(query, key, *_, out_shape=None, **__):
        areas.append(query[0] * query[2] * key[2])
        return 0

    kernel = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    flops, tokens, pairs = [], [], []
    for batches in (row_by_row(rows), pack(rows, 10_000, min_shared=1)):
        areas.clear()
        with packed_attention(model), FlopCounterMode(display=False, custom_mapping=kernel) as counter:
            for packed in batches:
                batch = to_tensors(packed, CPU)
                packed_hidden(model, batch.token_ids_N, batch.position_ids_N, batch.layout).sum().backward()
        flops.append(counter.get_total_flops())
        tokens.append(sum(len(packed.token_ids_N) for packed in batches))
        pairs.append(sum(areas))
    assert tokens[1] < 0.8 * tokens[0]
    assert flops[1] / flops[0] == pytest.approx(tokens[1] / tokens[0], rel=0.05)
    assert 0 < pairs[1] < pairs[0]


def test_attention_never_copies_a_path(make_model):
    """Of a chain of steps of which each leaves a branch, what is kept for the backward pass grows with its tokens."""
    saved: list[int] = []
    for steps in (10, 40):
        length, side = 8 * steps, 4
        lengths = np.array([length, *[side] * (steps - 1)], np.int32)
        stems = np.array([-1, *range(length - 9, 0, -8)], np.int32)
        layout = make_layout(lengths, stems, CPU)
        states = [torch.randn(1, heads, lengths.sum(), 8, requires_grad=True) for heads in (4, 2, 2)]
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            layout.attend(*states, None).sum()
        saved.append(sum(kept) / lengths.sum())
    assert saved[0] == saved[1] == (4 + 2 + 2 + 4) * 8 + 4
