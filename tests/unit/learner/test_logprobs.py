import pytest
import torch

from agent_rl.learner import logprobs as module
from agent_rl.learner.attention import packed_attention
from agent_rl.learner.batch import pack
from agent_rl.learner.logprobs import trained_logprobs
from agent_rl.learner.tensors import to_tensors


@pytest.fixture
def model(make_model):
    model = make_model("qwen3", torch.float64).eval()
    with packed_attention(model):
        yield model


@pytest.fixture
def batch(make_rows):
    [packed] = pack(make_rows([30, 12, 12, 7]), 100)
    return to_tensors(packed, torch.device("cpu"))


def test_the_head_runs_only_where_a_token_is_trained(model, batch):
    seen = []
    model.lm_head.register_forward_hook(lambda _head, inputs, _logits: seen.append(inputs[0].numel() // 32))
    logprobs, entropy = trained_logprobs(model, batch, 1.0)
    assert seen == [len(batch.trained.targets_K)] == [len(logprobs)] == [len(entropy)]
    assert len(batch.trained.targets_K) < len(batch.token_ids_N)


def test_entropy_is_that_of_the_sampled_distribution(model, batch):
    reference = torch.nn.functional.one_hot(batch.sources_K, len(batch.token_ids_N)).double()
    hidden = model.get_decoder()(
        input_ids=batch.token_ids_N[None],
        position_ids=batch.position_ids_N[None],
        use_cache=False,
        layout=batch.layout,
    ).last_hidden_state[0]
    distribution = torch.distributions.Categorical(logits=model.lm_head(reference @ hidden) / 0.5)
    logprobs, entropy = trained_logprobs(model, batch, 0.5)
    torch.testing.assert_close(logprobs, distribution.log_prob(batch.trained.targets_K))
    torch.testing.assert_close(entropy, distribution.entropy())
    assert logprobs.requires_grad
    assert not entropy.requires_grad


def test_chunks_change_neither_values_nor_gradients(model, batch, monkeypatch):
    results = []
    for logits_per_chunk in (2**24, 5 * 37, 1):
        monkeypatch.setattr(module, "LOGITS_PER_CHUNK", logits_per_chunk)
        logprobs, entropy = trained_logprobs(model, batch, 0.9)
        (logprobs * batch.trained.advantages_K).sum().backward()
        results.append((logprobs.detach(), entropy, [p.grad for p in model.parameters()]))
        model.zero_grad()
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_chunks_bound_memory(model, make_rows, monkeypatch):
    """With 10 rows of logits per chunk, no more logits than that are alive at once, forward and backward."""
    [packed] = pack(make_rows([120] * 4), 1000)
    monkeypatch.setattr(module, "LOGITS_PER_CHUNK", 10 * 37)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        trained_logprobs(model, to_tensors(packed, torch.device("cpu")), 1.0)
    logits = [shape for shape in saved if len(shape) == 2 and shape[1] == 37 and shape[0] > 10]
    assert logits == []
