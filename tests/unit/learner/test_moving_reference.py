"""A reference that follows the policy, or begins as a soup: weights by hand, what pulls, what a checkpoint keeps."""

import pytest
import torch
from pydantic import ValidationError

from agent_rl.errors import ConfigError
from agent_rl.learner.config import LearnerConfig, LoraConfig, ReferenceConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.policy import save_policy
from agent_rl.testing.tiny import make_model as tiny_model
from agent_rl.testing.tiny import make_tokenizer


def weights_of(model) -> list[list[float]]:
    return [parameter.detach().flatten().tolist() for parameter in model.parameters()]


def follower(model, **options) -> Learner:
    learner = {name: options.pop(name) for name in ("minibatches", "epochs") if name in options}
    config = LearnerConfig(kl_coefficient=0.5, learning_rate=1e-2, reference=ReferenceConfig(**options), **learner)
    return Learner(model, config)


def reference_of(learner: Learner):
    return learner._prepare._frozen["reference"].model


@pytest.mark.parametrize(("follow", "every"), [(0.25, 1), (1.0, 2), (0.5, 3)])
def test_it_is_the_published_average(make_model, make_rows, follow, every):
    """ref := (1 - follow) ref + follow policy after every so many steps, weight by weight."""
    learner = follower(make_model("qwen3", torch.float64), follow=follow, every=every)
    expected = weights_of(learner.model)
    for step in range(1, 6):
        learner.step(make_rows([20, 30], seed=step))
        if step % every == 0:
            expected = [
                [(1 - follow) * own + follow * theirs for own, theirs in zip(*pair, strict=True)]
                for pair in zip(expected, weights_of(learner.model), strict=True)
            ]
        for own, wanted in zip(weights_of(reference_of(learner)), expected, strict=True):
            assert own == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize("family", ["qwen3", "llama"])  # with tied embeddings and without
def test_behind_a_step_that_replaces_it_the_policy_is_at_its_reference(make_model, make_rows, family):
    rows = make_rows([20, 30])
    learner = follower(make_model(family), follow=1.0, every=2)
    distances = [learner.step(rows)["reference_kl"] for _ in range(5)]
    assert [distance > 1e-4 for distance in distances] == [False, True, False, True, False]


def test_it_holds_still_within_a_training_step(make_model, make_rows):
    """What pulls was found out before the first of the optimizer steps, and is replaced behind the last."""
    rows = make_rows([20, 30, 25, 40])
    learner = follower(make_model("qwen3"), follow=1.0, minibatches=2, epochs=2)
    before = weights_of(learner.model)
    learner.step(rows)
    assert learner.optimizer_steps == 4
    assert weights_of(reference_of(learner)) == weights_of(learner.model) != before


def test_a_checkpoint_keeps_where_it_is(make_model, make_rows, tmp_path):
    whole, resumed = (follower(make_model("qwen3"), follow=0.3, every=2) for _ in range(2))
    for step in range(3):
        whole.step(make_rows([20, 30], seed=step))
    whole.save(tmp_path)
    resumed.load(tmp_path)
    assert weights_of(reference_of(resumed)) == weights_of(reference_of(whole)) != weights_of(make_model("qwen3"))
    for step in range(3, 6):
        assert resumed.step(make_rows([20, 30], seed=step)) == whole.step(make_rows([20, 30], seed=step))
    still = Learner(make_model("qwen3"), LearnerConfig(kl_coefficient=0.5))
    with pytest.raises(ConfigError, match=r"do not both move: set learner\.reference as it was"):
        still.load(tmp_path)
    with pytest.raises(ConfigError, match="do not both move"):
        resumed.load_state_dict(still.state_dict())


def checkpoint(folder, seed, **options):
    tokenizer = make_tokenizer(["say again 0123456789"], vocab_size=300)
    model = tiny_model(
        tokenizer, **{"hidden_size": 32, "layers": 1, "heads": 1, "max_context": 96} | options, seed=seed
    )
    save_policy(model, tokenizer, folder)
    return model


def test_a_soup_is_the_mean_of_all_weights(tmp_path):
    models = [checkpoint(tmp_path / str(seed), seed) for seed in range(3)]
    before = weights_of(models[0])
    learner = follower(models[0], soup=(str(tmp_path / "1"), str(tmp_path / "2")))
    for own, *theirs in zip(weights_of(reference_of(learner)), *map(weights_of, models), strict=True):
        assert own == pytest.approx([sum(values) / 3 for values in zip(*theirs, strict=True)], abs=1e-7)
    assert weights_of(learner.model) == before, "the policy itself is no soup"


def test_a_soup_of_other_models_is_refused(tmp_path):
    checkpoint(tmp_path / "wider", 1, hidden_size=64)
    with pytest.raises(ConfigError, match="has not the policy's weights"):
        follower(checkpoint(tmp_path / "ours", 0), soup=(str(tmp_path / "wider"),))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"reference": ReferenceConfig(follow=1.0)}, "set kl_coefficient"),
        (
            {"kl_coefficient": 0.1, "lora": LoraConfig(), "reference": ReferenceConfig(follow=1.0)},
            "without its adapters",
        ),
        ({"kl_coefficient": 0.1, "reference": {"every": 2}}, "set follow"),
        ({"kl_coefficient": 0.1, "reference": {"follow": 1.5}}, "less than or equal to 1"),
    ],
)
def test_combinations_without_sense_are_refused(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        LearnerConfig(**options)
