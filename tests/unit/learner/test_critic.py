"""A critic: values of prefixes however rows are packed, losses against their formulas, learning, resuming."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import norm

from agent_rl.errors import ConfigError
from agent_rl.learner.critic import Critic
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.value_losses import HLGauss, clipped_squared_error, squared_error
from agent_rl.types import TrainingRow

FAST = {"learning_rate": 3e-3, "betas": (0.9, 0.95)}


def with_random_head(critic: Critic) -> Critic:
    torch.manual_seed(1)
    torch.nn.init.normal_(critic.head.weight)
    torch.nn.init.normal_(critic.head.bias)
    return critic


def targets_for(rows: list[TrainingRow]) -> list[TrainingRow]:
    """Something that can be read off the row: the share of small token ids so far."""
    return [
        TrainingRow(
            row.token_ids_T,
            row.response_mask_T,
            row.rollout_logprobs_T,
            ((row.token_ids_T < 15).cumsum() / np.arange(1, len(row.token_ids_T) + 1)).astype(np.float32),
            row.weights_T,
            row.weight_versions_T,
        )
        for row in rows
    ]


@pytest.mark.parametrize("loss", ["squared", "hl_gauss"])
@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_values_are_those_of_the_plain_model_for_any_packing(make_model, make_rows, name, loss):
    model = make_model(name, torch.float64)
    rows = [row.token_ids_T for row in make_rows([5, 40, 17, 1, 23])]
    options = {"loss": loss, "low": -2.0, "high": 3.0, "bins": 11}
    critics = [
        with_random_head(Critic(copy.deepcopy(model), CriticConfig(token_budget=budget, **options)))
        for budget in (30, 10_000)
    ]
    classes = HLGauss(-2.0, 3.0, 11, 0.75)
    for critic in critics:
        for ids_T, values_T1 in zip(rows, critic.values(rows), strict=True):
            with torch.no_grad():
                hidden = critic.model.model(torch.as_tensor(ids_T, dtype=torch.long)[None]).last_hidden_state[0]
                outputs = critic.head(hidden)
            expected = classes.value(outputs) if loss == "hl_gauss" else outputs[:, 0]
            assert values_T1[0] == 0
            np.testing.assert_allclose(values_T1[1:], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_new_critic_says_0_or_the_middle(make_model, make_rows):
    rows = [row.token_ids_T for row in make_rows([9, 12])]
    for loss, first in (("squared", 0.0), ("hl_gauss", 0.5)):
        for values_T1 in Critic(make_model("qwen3"), CriticConfig(loss=loss)).values(rows):
            np.testing.assert_allclose(values_T1[1:], first, atol=1e-6)


@pytest.mark.parametrize("loss", ["squared", "clipped", "hl_gauss"])
def test_it_learns_what_can_be_read_off_the_row(make_model, make_rows, loss):
    critic = Critic(make_model("qwen3"), CriticConfig(loss=loss, clip=0.5, minibatches=2, **FAST))
    rows = targets_for(make_rows([20, 30, 25, 28, 22, 31]))
    reports = [critic.step(rows, range(6)) for _ in range(80)]
    assert reports[0]["explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert reports[-1]["explained_variance"] > 0.9
    values = critic.values([row.token_ids_T for row in rows])
    errors = [
        np.abs(v[:-1] - row.advantages_T)[row.response_mask_T].mean() for v, row in zip(values, rows, strict=True)
    ]
    assert np.mean(errors) < 0.05


def test_a_step_does_not_depend_on_the_packing(make_model, make_rows):
    rows, weights = targets_for(make_rows([20, 30, 25, 28])), []
    for budget in (31, 10_000):
        critic = Critic(make_model("qwen3", torch.float64), CriticConfig(token_budget=budget, **FAST))
        for _ in range(3):
            critic.step(rows, range(4))
        weights.append(torch.cat([p.flatten() for p in critic.state_dict()["trainable"].values()]))
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-9)


def test_it_goes_on_bit_for_bit(make_model, make_rows):
    rows, config = targets_for(make_rows([20, 30])), CriticConfig(**FAST)
    critic = Critic(make_model("qwen3"), config)
    critic.step(rows, range(2))
    state = copy.deepcopy(critic.state_dict())
    other = Critic(make_model("qwen3"), config)
    other.load_state_dict(state)
    assert critic.step(rows, range(2)) == other.step(rows, range(2))
    for ours, theirs in zip(critic.values([rows[0].token_ids_T]), other.values([rows[0].token_ids_T]), strict=True):
        assert np.array_equal(ours, theirs)
    with pytest.raises(ConfigError, match="another critic"):
        Critic(make_model("qwen3"), CriticConfig(loss="hl_gauss")).load_state_dict(state)


def test_an_untied_language_head_is_left_alone(make_model):
    critic = Critic(make_model("llama"), CriticConfig())
    assert not any("lm_head" in name for name in critic.state_dict()["trainable"])
    assert any("embed_tokens" in name for name in Critic(make_model("qwen3"), CriticConfig()).state_dict()["trainable"])


# --- losses ---------------------------------------------------------------------------------------------------------


def numeric_gradient(loss, at: torch.Tensor) -> torch.Tensor:
    gradient = torch.zeros_like(at)
    for i in range(at.numel()):
        step = torch.zeros_like(at).flatten()
        step[i] = 1e-6
        step = step.view_as(at)
        gradient.view(-1)[i] = (loss(at + step) - loss(at - step)) / 2e-6
    return gradient


@pytest.mark.parametrize("name", ["squared", "clipped", "hl_gauss"])
def test_gradients_are_the_finite_differences(name):
    torch.manual_seed(0)
    targets, old = torch.rand(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    classes = HLGauss(0.0, 1.0, 7, 0.75)
    at = torch.randn(6, 7, dtype=torch.float64) if name == "hl_gauss" else torch.rand(6, dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        if name == "hl_gauss":
            return classes.loss(x, targets).sum()
        return (squared_error(x, targets) if name == "squared" else clipped_squared_error(x, targets, old, 0.2)).sum()

    x = at.clone().requires_grad_()
    loss(x).backward()
    torch.testing.assert_close(x.grad, numeric_gradient(loss, at), rtol=1e-5, atol=1e-7)


def test_the_clipped_loss_stops_pulling_a_value_that_went_far_enough():
    old, target = torch.tensor([0.0]), torch.tensor([1.0])
    for value, gradient in ((0.1, -0.9), (0.3, 0.0)):  # beyond 0.2 the clipped error is the larger one, and constant
        v = torch.tensor([value], requires_grad=True)
        clipped_squared_error(v, target, old, 0.2).sum().backward()
        assert v.grad.item() == pytest.approx(gradient)


def test_hl_gauss_histograms_are_the_gaussians():
    classes = HLGauss(-1.0, 2.0, 30, 0.75)
    targets = torch.tensor([-1.0, -0.97, 0.43, 1.99, 5.0], dtype=torch.float64)
    edges, deviation = np.linspace(-1, 2, 31), 0.75 * 0.1
    for target, row in zip(targets.clamp(-1, 2).tolist(), classes.probabilities(targets), strict=True):
        mass = np.diff(norm.cdf(edges, target, deviation))
        np.testing.assert_allclose(row.numpy(), mass / mass.sum(), rtol=1e-9, atol=1e-12)
    inside = torch.tensor([0.0, 0.43, 1.2], dtype=torch.float64)
    torch.testing.assert_close(classes.value(classes.probabilities(inside).log()), inside, atol=1e-6, rtol=0)


def test_a_range_has_two_ends():
    with pytest.raises(ValueError, match=r"low 1\.0 has to be below high 1\.0"):
        CriticConfig(low=1.0, high=1.0)
