"""What a learner is drawn to beside its advantages, through a model: teachers, demonstrations, interpolation."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from agent_rl.errors import ConfigError, NotFoundError
from agent_rl.learner import head
from agent_rl.learner.attention import packed_attention
from agent_rl.learner.config import DistillationConfig, ImitationLossConfig, LearnerConfig, LpRegConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.logprobs import trained_loss

DIVERGENCES = ["k1", "k2", "exact_reverse", "exact_forward", "exact_js"]


def neutral(rows):
    return [replace(row, advantages_T=np.zeros_like(row.advantages_T)) for row in rows]


def flat(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def another(model):
    """A teacher: the same model a little further on."""
    teacher = copy.deepcopy(model)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.2 * parameter.std() * torch.randn_like(parameter))
    return teacher


def distributions(model, rows):
    """At every position that predicts a trained token."""
    found = []
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor(row.token_ids_T).long()[None]).logits[0]
            found.append(logits[row.weights_T.nonzero()[0] - 1].log_softmax(-1))
    return torch.cat(found)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_distillation_alone_brings_a_student_to_its_teacher(make_model, make_rows, divergence):
    student = make_model("qwen3")
    teacher, rows = another(student), make_rows([20, 30, 25])
    config = LearnerConfig(
        learning_rate=5e-3,
        loss="reinforce",
        old_logprobs="recompute",
        advantage_coefficient=0.0,
        distillation=DistillationConfig(teacher="given", divergence=divergence),
    )
    learner = Learner(student, config, teacher=teacher)
    before, frozen = distributions(student, rows), flat(teacher)
    target = distributions(teacher, rows)
    reports = [learner.step(rows) for _ in range(12)]
    distance = lambda p: (target.exp() * (target - p)).sum(-1).mean()  # noqa: E731
    if divergence.startswith("exact"):
        assert distance(distributions(student, rows)) < 0.5 * distance(before)
    assert reports[-1]["teacher_kl"] < 0.5 * reports[0]["teacher_kl"]
    assert torch.equal(flat(teacher), frozen)


@pytest.mark.parametrize("divergence", ["exact_reverse", "exact_js"])
@pytest.mark.parametrize("logits_per_chunk", [2**24, 5 * 37])
def test_exact_divergences_are_those_of_the_plain_models(
    make_model, make_rows, monkeypatch, divergence, logits_per_chunk
):
    """Value and gradient, in chunks or not, at a temperature."""
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", logits_per_chunk)
    student = make_model("qwen3", torch.float64)
    teacher, [row] = another(student), make_rows([30])
    taught = DistillationConfig(teacher="given", divergence=divergence, coefficient=0.7)
    config = LearnerConfig(distillation=taught, advantage_coefficient=0.0)
    learner = Learner(student, config, temperature=0.8, teacher=teacher)
    [batch] = learner._pack([row])
    with packed_attention(student):
        result = trained_loss(student, learner._prepare.with_distributions(batch), learner._objective, 0.8)
    result.loss.backward()
    gradient = [p.grad.clone() for p in student.parameters()]
    student.zero_grad()

    ids, at = torch.tensor(row.token_ids_T).long()[None], row.weights_T.nonzero()[0] - 1
    p = (student(input_ids=ids).logits[0][at] / 0.8).log_softmax(-1)
    with torch.no_grad():
        q = (teacher(input_ids=ids).logits[0][at] / 0.8).log_softmax(-1)
    if divergence == "exact_reverse":
        terms = (p.exp() * (p - q)).sum(-1)
    else:
        m = ((p.exp() + q.exp()) / 2).log()
        terms = ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)) / 2
    expected = 0.7 * terms.mean()
    expected.backward()
    torch.testing.assert_close(result.loss, expected, rtol=1e-6, atol=0)
    for ours, theirs in zip(gradient, student.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-4, atol=1e-8)


def test_teachers_that_cannot_teach_are_refused(make_model):
    taught = LearnerConfig(distillation=DistillationConfig(teacher="x", divergence="exact_forward"))
    with pytest.raises(ConfigError, match="needs the teacher's model"):
        Learner(make_model("qwen3"), taught)
    with pytest.raises(ConfigError, match="41 entries, not 37"):
        Learner(make_model("qwen3"), taught, teacher=make_model("qwen3", vocab_size=41))
    with pytest.raises(NotFoundError, match="Unknown divergence 'reverse'"):
        Learner(make_model("qwen3"), LearnerConfig(kl="reverse", kl_coefficient=1.0))


def test_the_first_optimizer_step_interpolates_to_what_is_recomputed(make_model, make_rows):
    rows, weights = make_rows([20, 30, 25]), []
    for old in ("recompute", "interpolate", "rollout"):
        config = LearnerConfig(old_logprobs=old, correction="none" if old == "rollout" else "mask", learning_rate=1e-2)
        learner = Learner(make_model("qwen3"), config)
        learner.step(rows, version=2)
        weights.append(flat(learner.model))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)
    assert (weights[0] - weights[2]).abs().max() > 1e-3


def test_interpolation_has_to_know_the_version(make_model, make_rows):
    with pytest.raises(ValueError, match="has to know the weight version"):
        Learner(make_model("qwen3"), LearnerConfig(old_logprobs="interpolate")).step(make_rows([20]))


@pytest.mark.parametrize("loss", ["nll", "rl_plus"])
def test_imitated_rows_become_likelier_beside_the_others(make_model, make_rows, loss):
    rows, shown = neutral(make_rows([20, 25])), make_rows([22, 18, 30], seed=1)
    config = LearnerConfig(learning_rate=5e-3, minibatches=2, imitation=ImitationLossConfig(coefficient=0.5, loss=loss))
    learner = Learner(make_model("qwen3"), config)
    likelihood = [learner.step(rows, imitated=shown)["imitation_nll"] for _ in range(10)]
    assert likelihood[-1] < likelihood[0] - 0.5
    with pytest.raises(ValueError, match="nothing says how rows are imitated"):
        Learner(make_model("qwen3"), LearnerConfig()).step(rows, imitated=shown)


def test_imitation_adds_its_gradient_and_no_more(make_model, make_rows):
    """One SGD-like comparison: gradient of both = gradient of the rows + coefficient * that of a supervised step."""
    rows, shown = make_rows([20, 25]), make_rows([22, 18], seed=1)
    gradients = {}
    for name, imitation, imitated in (
        ("rows", None, ()),
        ("both", ImitationLossConfig(coefficient=0.25), shown),
        ("shown", None, None),
    ):
        learner = Learner(make_model("qwen3", torch.float64), LearnerConfig(imitation=imitation, max_grad_norm=1e9))
        if imitated is None:
            learner.supervised_step(shown)
        else:
            learner.step(rows, imitated=imitated)
        gradients[name] = torch.cat([p.grad.flatten() for p in learner.model.parameters()])
    expected = gradients["rows"] + 0.25 * gradients["shown"]
    torch.testing.assert_close(gradients["both"], expected, rtol=1e-5, atol=1e-9)


def test_lp_reg_holds_the_unlikely_tokens_of_bad_rows(make_model, make_rows):
    rows = [
        replace(r, advantages_T=np.where(r.response_mask_T, np.float32(-1), np.float32(0)))
        for r in make_rows([20, 30, 25])
    ]

    def least_likely(lp_reg):
        config = LearnerConfig(learning_rate=3e-3, loss="reinforce", old_logprobs="recompute", epochs=6, lp_reg=lp_reg)
        learner = Learner(make_model("qwen3"), config)
        [batch] = learner._pack(rows)
        with packed_attention(learner.model):
            [before] = learner._prepare([batch])
        learner.step(rows)
        with packed_attention(learner.model):
            after = learner._prepare.with_old(batch).trained.old_logprobs_K
        return before.trained, after

    options = LpRegConfig(coefficient=5.0, share=0.3, min_p=0.001)
    before, held = least_likely(options)
    _, free = least_likely(None)
    chosen = before.proxy_logprobs_K > -torch.inf
    assert 0 < chosen.sum() <= 0.3 * len(chosen)
    assert before.old_logprobs_K[chosen].max() < before.old_logprobs_K[~chosen].median()
    assert (held - free)[chosen].mean() > 0.5


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"correction": "mask"}, "set old_logprobs to recompute or interpolate"),
        ({"lp_reg": LpRegConfig()}, "set old_logprobs to recompute"),
        ({"advantage_coefficient": 0.0}, "leaves nothing to learn"),
    ],
)
def test_combinations_without_sense_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        LearnerConfig(**options)
