"""A value head on the policy's decoder: it learns in the policy's steps, and the policy feels it only if it should."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.learner import Learner

FAST = LearnerConfig(learning_rate=5e-3, token_budget=64)


def on_policy(**options):
    return CriticConfig(trunk="policy", **options)


def with_targets(rows, advantage=0.0):
    """Returns that can be read off the row: the share of small token ids so far."""
    return [
        replace(
            row,
            advantages_T=(advantage * row.advantages_T).astype(np.float32),
            returns_T=((row.token_ids_T < 15).cumsum() / np.arange(1, len(row.token_ids_T) + 1)).astype(np.float32),
        )
        for row in rows
    ]


def flat(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


@pytest.mark.parametrize("loss", ["squared", "clipped", "hl_gauss"])
def test_the_head_learns_in_the_policys_steps(make_model, make_rows, loss):
    rows = with_targets(make_rows([20, 30, 25]))
    learner = Learner(make_model("qwen3"), FAST, values=on_policy(loss=loss, clip=0.5, coefficient=1.0))
    reports = [learner.step(rows) for _ in range(20)]
    assert reports[-1]["value_loss"] < reports[0]["value_loss"]
    values = learner.values([row.token_ids_T for row in rows])
    errors = [np.abs(v[:-1] - r.returns_T)[r.response_mask_T].mean() for v, r in zip(values, rows, strict=True)]
    assert np.mean(errors) < 0.15


def test_a_stopped_gradient_leaves_the_policy_alone(make_model, make_rows):
    rows = with_targets(make_rows([20, 30]), advantage=1.0)
    plain, stopped, shared = (
        Learner(make_model("qwen3"), FAST.model_copy(update={"max_grad_norm": 1e9}), values=values)
        for values in (None, on_policy(stop_gradient=True), on_policy())
    )
    for learner in (plain, stopped, shared):
        for _ in range(2):
            learner.step(rows)
    assert torch.equal(flat(plain.model), flat(stopped.model))
    assert not torch.equal(flat(plain.model), flat(shared.model))
    assert stopped.value_head is not None
    assert stopped.value_head.weight.abs().max() > 0


def test_the_gradient_is_the_policys_and_the_coefficient_times_the_values(make_model, make_rows):
    rows, gradients = with_targets(make_rows([20, 30]), advantage=1.0), []
    for coefficient in (0.5, 1.5, 1.0):
        learner = Learner(
            make_model("qwen3", torch.float64),
            FAST.model_copy(update={"max_grad_norm": 1e9}),
            values=on_policy(coefficient=coefficient),
        )
        torch.manual_seed(1)
        torch.nn.init.normal_(learner.value_head.weight)
        learner.step(rows)
        gradients.append(torch.cat([p.grad.flatten() for p in learner.model.parameters()]))
    difference = (gradients[0] + gradients[1]) / 2 - gradients[2]
    assert difference.norm() < 1e-5 * gradients[2].norm()  # norms are fp32
    assert (gradients[1] - gradients[0]).norm() > 1e-3


def test_it_resumes_bit_for_bit_and_engines_do_not_see_it(make_model, make_rows):
    rows = with_targets(make_rows([20, 30]), advantage=1.0)
    learner, other = (Learner(make_model("qwen3"), FAST, values=on_policy()) for _ in range(2))
    learner.step(rows)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert learner.step(rows) == other.step(rows)
    for ours, theirs in zip(*(each.values([rows[0].token_ids_T]) for each in (learner, other)), strict=True):
        assert np.array_equal(ours, theirs)
        assert np.abs(ours).max() > 0
    assert set(learner.weights()) == set(Learner(make_model("qwen3"), FAST).weights())


def test_rows_need_returns(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST, values=on_policy())
    with pytest.raises(ValueError, match="need returns_T"):
        learner.step(make_rows([20]))
    with pytest.raises(ValueError, match="no value head"):
        Learner(make_model("qwen3"), FAST).values([])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"trunk": "policy", "learning_rate": 1e-3}, "learning_rate has no meaning for a critic whose trunk is policy"),
        ({"trunk": "policy", "alone_steps": 2}, "alone_steps has no meaning"),
        ({"coefficient": 0.1}, "coefficient has no meaning for a critic whose trunk is separate"),
    ],
)
def test_options_of_the_other_trunk_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        CriticConfig(**options)
