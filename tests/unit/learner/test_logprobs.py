import pytest
import torch

from agent_rl.errors import ModelError
from agent_rl.learner import head as module
from agent_rl.learner.attention import packed_attention
from agent_rl.learner.batch import pack
from agent_rl.learner.config import LearnerConfig, LoraConfig
from agent_rl.learner.logprobs import Precision, trained_logprobs, trained_loss
from agent_rl.learner.lora import add_lora, without_lora
from agent_rl.learner.objective import Likelihood, PolicyObjective
from agent_rl.learner.tensors import to_tensors

BF16 = Precision(autocast=True, fp32_head=False)


@pytest.fixture
def model(make_model):
    model = make_model("qwen3", torch.float64).eval()
    with packed_attention(model):
        yield model


@pytest.fixture
def batch(make_rows):
    [packed] = pack(make_rows([30, 12, 12, 7]), 100)
    return to_tensors(packed, torch.device("cpu"))


def dense(model, batch, temperature):
    """The distribution at every trained token, from all logits of all tokens."""
    hidden = model.get_decoder()(
        input_ids=batch.token_ids_N[None],
        position_ids=batch.position_ids_N[None],
        use_cache=False,
        layout=batch.layout,
    ).last_hidden_state[0]
    return torch.distributions.Categorical(logits=model.lm_head(hidden)[batch.sources_K] / temperature)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_values_are_those_of_the_sampled_distribution(model, batch):
    distribution = dense(model, batch, 0.5)
    logprobs, entropy = trained_logprobs(model, batch, 0.5)
    torch.testing.assert_close(logprobs, distribution.log_prob(batch.trained.targets_K))
    torch.testing.assert_close(entropy, distribution.entropy())
    assert not logprobs.requires_grad


def test_the_head_runs_only_where_a_token_is_trained(model, batch, monkeypatch):
    seen = []
    logits = module.Head.logits
    monkeypatch.setattr(module.Head, "logits", lambda head, hidden: seen.append(len(hidden)) or logits(head, hidden))
    trained_logprobs(model, batch, 1.0)
    trained_loss(model, batch, Likelihood(), 1.0)
    assert seen == 2 * [len(batch.trained.targets_K)]
    assert len(batch.trained.targets_K) < len(batch.token_ids_N)


def assert_dense_gradient(model, batch):
    objective = PolicyObjective(LearnerConfig())
    with packed_attention(model):
        distribution = dense(model, batch, 0.7)
        logprobs, entropy = distribution.log_prob(batch.trained.targets_K), distribution.entropy()
        expected = gradients(model, objective(batch.trained, logprobs, entropy).loss)
        actual = gradients(model, trained_loss(model, batch, objective, 0.7).loss)
    torch.testing.assert_close(actual, expected)
    return actual


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])  # embeddings tied and not
def test_embeddings_tied_or_not_have_their_gradients(make_model, batch, architecture):
    assert ("lm_head.weight" in assert_dense_gradient(make_model(architecture, torch.float64), batch)) == (
        architecture == "llama"
    )


def test_a_head_with_a_bias_and_an_adapter_has_its_gradients(make_model, batch):
    model = make_model("llama", torch.float64)
    torch.manual_seed(1)
    model.lm_head.bias = torch.nn.Parameter(torch.randn(37, dtype=torch.float64))
    assert "lm_head.bias" in assert_dense_gradient(model, batch)
    add_lora(model, LoraConfig(rank=3, targets=("lm_head", "q_proj")), 0)
    torch.nn.init.normal_(model.lm_head.lora_B["default"].weight)
    actual = assert_dense_gradient(model, batch)
    assert {"lm_head.lora_A.default.weight", "lm_head.lora_B.default.weight"} < set(actual)
    with packed_attention(model), without_lora(model):
        expected = dense(model, batch, 1.0).log_prob(batch.trained.targets_K)
        torch.testing.assert_close(trained_logprobs(model, batch, 1.0)[0], expected)


def test_a_head_that_is_no_linear_layer_is_refused(model, batch):
    model.lm_head = torch.nn.Sequential(torch.nn.Linear(32, 37, dtype=torch.float64))
    with pytest.raises(ModelError, match="Sequential"):
        trained_logprobs(model, batch, 1.0)


def test_autocast_multiplies_in_bf16_and_adds_in_fp32(make_model, batch):
    model = make_model("qwen3")
    with packed_attention(model):
        exact = gradients(model, trained_loss(model, batch, Likelihood(), 1.0).loss)
        rounded = gradients(model, trained_loss(model, batch, Likelihood(), 1.0, BF16).loss)
        logprobs, _ = trained_logprobs(model, batch, 1.0, BF16)
    assert logprobs.dtype == torch.float32
    for name, gradient in exact.items():
        error = (rounded[name] - gradient).norm() / gradient.norm()
        assert 1e-6 < error < 0.1, name
