import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from agent_rl.errors import ConfigError, NotFoundError
from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.learner.watch import Seen

FAST = LearnerConfig(learning_rate=1e-2, token_budget=64)


def flat(learner):
    return torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()])


def with_own_logprobs(learner, rows):
    """The rows as if the learner's current weights had sampled them."""
    return [replace(row, rollout_logprobs_T=own_T) for row, own_T in zip(rows, learner.logprobs(rows), strict=True)]


def test_a_step_makes_good_tokens_likelier(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST)
    rows = with_own_logprobs(learner, make_rows([20, 30, 25]))

    def score():
        return sum(
            float((row.advantages_T * own.rollout_logprobs_T).sum())
            for row, own in zip(rows, with_own_logprobs(learner, rows), strict=True)
        )

    before = score()
    report = learner.step(rows)
    assert score() > before
    assert report["mismatch_abs"] < 1e-5
    assert report["mismatch_k3"] < 1e-9
    assert report["ratio"] == pytest.approx(1, abs=1e-5)
    assert report["clip_fraction"] == 0
    assert report["trained_tokens"] == sum((row.weights_T > 0).sum() for row in rows)
    assert 0 < report["entropy"] < math.log(37)


def test_mismatch_is_measured_before_the_first_update(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST.model_copy(update={"minibatches": 2, "epochs": 3}))
    rows = with_own_logprobs(learner, make_rows([20, 30, 25, 22]))
    shifted = [replace(row, rollout_logprobs_T=row.rollout_logprobs_T - np.float32(0.1)) for row in rows]
    report = learner.step(shifted)
    assert report["mismatch_abs"] == pytest.approx(0.1, rel=1e-4)
    assert report["mismatch_k3"] == pytest.approx(math.expm1(0.1) - 0.1, rel=1e-3)
    assert learner.optimizer_steps == 6


@pytest.mark.parametrize("loss", ["ppo_clip", "gspo", "nft", "mirror", "turn_mirror"])
def test_seen_are_the_log_probs_of_the_weights_that_a_row_first_met(make_model, make_rows, loss):
    """Where all groups go into one minibatch, those before the step; and looking changes nothing."""
    config = FAST.model_copy(update={"epochs": 2, "loss": loss})
    learner, unseen = Learner(make_model("qwen3"), config), Learner(make_model("qwen3"), config)
    rows = make_rows([20, 30, 25, 22])
    expected, seen = learner.logprobs(rows), Seen()
    assert learner.step(rows, seen=seen) == unseen.step(rows)
    for row, expected_T, logprobs_T, entropies_T in zip(rows, expected, seen.logprobs, seen.entropies, strict=True):
        trained_T = row.weights_T != 0
        np.testing.assert_allclose(logprobs_T[trained_T], expected_T[trained_T], atol=1e-5)
        assert (entropies_T[trained_T] > 0).all()
        assert np.isnan(logprobs_T[~trained_T]).all()
        assert np.isnan(entropies_T[~trained_T]).all()


def test_seen_rows_come_in_their_order_however_they_are_dealt(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST.model_copy(update={"minibatches": 3, "learning_rate": 0.0}))
    rows, seen = make_rows([20, 30, 25, 22, 40]), Seen()
    expected = learner.logprobs(rows)
    learner.step(rows, [0, 1, 1, 2, 3], seen=seen)
    for row, expected_T, logprobs_T in zip(rows, expected, seen.logprobs, strict=True):
        np.testing.assert_allclose(np.where(row.weights_T != 0, logprobs_T, 0), expected_T, atol=1e-5)


def test_the_learner_has_no_dropout_like_the_sampler(make_model, make_rows):
    learner = Learner(make_model("qwen3", attention_dropout=0.9).train(), FAST)
    plain = Learner(make_model("qwen3"), FAST)
    assert learner.step(make_rows([20, 30])) == plain.step(make_rows([20, 30]))


def test_recomputed_old_logprobs_ignore_the_samplers(make_model, make_rows):
    rows = make_rows([20, 30])  # sampled by something else entirely
    ratios = {
        choice: Learner(make_model("qwen3"), LearnerConfig(old_logprobs=choice)).step(rows)["ratio"]
        for choice in ("rollout", "recompute")
    }
    assert ratios["recompute"] == pytest.approx(1, abs=1e-6)
    assert abs(ratios["rollout"] - 1) > 0.05


def test_the_same_rows_and_state_give_the_same_weights(make_model, make_rows):
    rows = make_rows([20, 30, 25, 40, 9])
    config = FAST.model_copy(update={"minibatches": 2})
    first, second = (Learner(make_model("qwen3"), config, seed=7) for _ in range(2))
    for learner in (first, second):
        learner.step(rows)
        learner.step(rows)
    assert torch.equal(flat(first), flat(second))


def test_a_resumed_learner_continues_bit_for_bit(make_model, make_rows, tmp_path):
    config = LearnerConfig(
        learning_rate=1e-2, minibatches=2, schedule="cosine", warmup_steps=1, total_steps=12, token_budget=64
    )
    batches = [make_rows([20, 30, 25], seed=seed) for seed in range(4)]
    learner = Learner(make_model("qwen3"), config)
    for rows in batches[:2]:
        learner.step(rows)
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    resumed = Learner(make_model("qwen3"), config)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(flat(resumed), flat(learner))
    for rows in batches[2:]:
        assert resumed.step(rows) == learner.step(rows)
    assert torch.equal(flat(resumed), flat(learner))


def test_a_state_of_another_model_is_refused(make_model):
    state = Learner(make_model("qwen3"), FAST).state_dict()
    with pytest.raises(ConfigError, match="another model"):
        Learner(make_model("qwen3", hidden_size=64), FAST).load_state_dict(state)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_skipped_and_counted(make_model, make_rows, bad):
    learner = Learner(make_model("qwen3"), FAST)
    rows = make_rows([20, 30])
    learner.step(rows)
    before, state = flat(learner), copy.deepcopy(learner.state_dict()["optimizer"]["adamw"])
    poisoned = replace(rows[0], advantages_T=np.where(rows[0].response_mask_T, np.float32(bad), np.float32(0)))
    report = learner.step([poisoned, rows[1]])
    assert report["skipped_steps"] == 1
    assert report["learning_rate"] == 0
    assert torch.equal(flat(learner), before)
    after = learner.state_dict()["optimizer"]["adamw"]
    assert {name: own["step"] for name, own in state.items()} == {name: own["step"] for name, own in after.items()}
    assert learner.step(rows)["skipped_steps"] == 1
    assert not torch.equal(flat(learner), before)


def test_minibatches_deal_every_episode_once_and_whole(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST.model_copy(update={"minibatches": 3}))
    rows, episodes = make_rows([10] * 9), [0, 0, 1, 2, 2, 2, 3, 4, 5]
    parts = learner._split(rows, episodes)
    number = {id(row): episode for row, episode in zip(rows, episodes, strict=True)}
    numbers = [[number[id(row)] for row in part] for part in parts]
    assert sorted(episode for part in numbers for episode in part) == episodes
    assert [len(set(part)) for part in numbers] == [2, 2, 2]
    assert sum(len(set(part)) for part in numbers) == 6


def test_minibatches_are_dealt_anew_at_each_step_and_by_seed(make_model, make_rows):
    rows = make_rows([10] * 32)
    place = {id(row): i for i, row in enumerate(rows)}
    config = LearnerConfig(minibatches=2)

    def deal(learner):
        return [[place[id(row)] for row in part] for part in learner._split(rows, range(32))]

    learner, same, other = (Learner(make_model("qwen3"), config, seed=seed) for seed in (0, 0, 1))
    assert deal(learner) == deal(same) != deal(other)
    same.step(rows)
    assert deal(learner) != deal(same)


def test_fewer_episodes_than_minibatches(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST.model_copy(update={"minibatches": 8}))
    learner.step(make_rows([10] * 3))
    assert learner.optimizer_steps == 3


def test_each_minibatch_has_total_weight_one(make_model, make_rows):
    """Scaling all weights changes nothing: what counts is their share."""
    rows = make_rows([20, 30])
    scaled = [replace(row, weights_T=row.weights_T * np.float32(1 / 64)) for row in rows]
    one, other = Learner(make_model("qwen3"), FAST), Learner(make_model("qwen3"), FAST)
    assert one.step(rows) == pytest.approx(other.step(scaled), rel=1e-5)
    torch.testing.assert_close(flat(one), flat(other))


def test_supervised_steps_fit_the_rows(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST)
    rows = make_rows([20, 30])
    losses = [learner.supervised_step(rows)["loss"] for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0]


def test_gradient_norm_is_clipped(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST.model_copy(update={"max_grad_norm": 1e-3}))
    report = learner.step(make_rows([20, 30]))
    clipped = torch.cat([p.grad.flatten() for p in learner.model.parameters()]).norm().item()
    assert report["grad_norm"] > 1e-2
    assert clipped == pytest.approx(1e-3, rel=1e-3)


def test_the_learning_rate_follows_the_schedule(make_model, make_rows):
    config = LearnerConfig(learning_rate=1e-3, schedule="linear", warmup_steps=1, total_steps=5)
    learner = Learner(make_model("qwen3"), config)
    rates = [learner.step(make_rows([12]))["learning_rate"] for _ in range(6)]
    assert rates == pytest.approx([5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4, 0])


def test_cooling_down_lets_the_rate_fall_to_zero_from_where_it_is(make_model, make_rows):
    learner = Learner(make_model("qwen3"), LearnerConfig(learning_rate=1e-3, warmup_steps=2))
    for _ in range(5):
        learner.step(make_rows([12]))
    learner.cool_down(4)
    rates = [learner.step(make_rows([12]))["learning_rate"] for _ in range(5)]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4, 0.0])


def test_weight_decay_leaves_vectors_alone(make_model, make_rows):
    silent = [replace(row, advantages_T=0 * row.advantages_T) for row in make_rows([20])]
    learner = Learner(make_model("qwen3"), LearnerConfig(learning_rate=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    learner.step(silent)
    for name, parameter in learner.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if parameter.ndim > 1 else 1))


def test_weights_are_the_models_own_by_name(make_model):
    learner = Learner(make_model("qwen3"), FAST)
    plain = make_model("qwen3")
    missing, unexpected = plain.load_state_dict(learner.weights(), strict=False)
    assert missing == ["lm_head.weight"]  # tied to the embeddings
    assert unexpected == []


def test_bf16_products_still_train(make_model, make_rows):
    learner = Learner(make_model("qwen3"), FAST.model_copy(update={"autocast": True}))
    exact = Learner(make_model("qwen3"), FAST)
    rows = make_rows([20, 30])
    losses = learner.step(rows)["loss"], exact.step(rows)["loss"]
    assert losses[0] == pytest.approx(losses[1], rel=0.1, abs=0.01)
    assert losses[0] != losses[1]
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}


def test_bad_input_is_refused(make_model, make_rows):
    with pytest.raises(NotFoundError, match="ppo_clip"):
        Learner(make_model("qwen3"), LearnerConfig(loss="ppo_klip"))
    with pytest.raises(ConfigError, match="needs total_steps"):
        Learner(make_model("qwen3"), LearnerConfig(schedule="cosine"))
    learner = Learner(make_model("qwen3"), FAST)
    with pytest.raises(ValueError, match="nothing to train on"):
        learner.step([])
    with pytest.raises(ValueError, match="nothing to train on"):
        learner.supervised_step([replace(row, weights_T=0 * row.weights_T) for row in make_rows([5])])
