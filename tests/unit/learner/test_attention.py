import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from agent_rl.errors import ModelError
from agent_rl.learner.attention import check_packable, document_buckets, packed_attention, packed_hidden

CPU = torch.device("cpu")
SMALL = {
    "vocab_size": 37,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "qwen2"])
@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], [70, 69, 40, 39, 38, 3, 1], [33, 1], [64, 32, 16]])
def test_each_document_sees_only_itself(make_model, architecture, lengths):
    model = make_model(architecture, torch.float64).eval()
    torch.manual_seed(1)
    documents = [torch.randint(0, 37, (length,)) for length in lengths]
    expected = torch.cat([model.model(ids[None], use_cache=False).last_hidden_state[0] for ids in documents])
    positions = torch.cat([torch.arange(length) for length in lengths])
    with packed_attention(model):
        hidden = packed_hidden(model, torch.cat(documents), positions, document_buckets(lengths, CPU))
    torch.testing.assert_close(hidden, expected, rtol=1e-9, atol=1e-9)


def test_the_models_own_scaling_is_used(make_model):
    model = make_model("qwen3", torch.float64).eval()
    for layer in model.model.layers:
        layer.self_attn.scaling = 0.9
    check_packable(model)  # compares with transformers' own attention


def test_buckets_cover_the_batch_with_little_padding():
    lengths = sorted([100, 100, 90, 69, 68, 30, 4, 1], reverse=True)
    buckets = document_buckets(lengths, CPU)
    assert [(bucket.start, bucket.stop) for bucket in buckets] == [(0, 359), (359, 427), (427, 462)]
    assert [(bucket.documents, bucket.length) for bucket in buckets] == [(4, 100), (1, 68), (3, 30)]
    assert buckets[1].gather is None  # nothing to pad


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)), "sliding_window=4"),
        (lambda: GptOssForCausalLM(GptOssConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1)), "GptOss"),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL)), "Gemma2"),
        (lambda: MambaForCausalLM(MambaConfig(vocab_size=37, hidden_size=32, num_hidden_layers=2)), "Mamba"),
    ],
    ids=["sliding window", "attention sinks", "soft caps", "recurrence"],
)
def test_models_that_cannot_be_packed_are_refused(model, message):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=message):
        check_packable(model().eval())


def test_a_model_that_changes_its_logits_after_the_head_is_refused(make_model):
    class Scaled(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = 2 * output.logits
            return output

    with pytest.raises(ModelError, match="not a plain projection"):
        check_packable(Scaled(make_model("llama").config).eval())


def test_a_leak_between_documents_is_found(make_model, monkeypatch):
    """What transformers does by default with a packed row and a cache."""
    monkeypatch.setattr("agent_rl.learner.attention.document_buckets", lambda lengths, device: _one_bucket(lengths))
    with pytest.raises(ModelError, match="see other documents"):
        check_packable(make_model("qwen3").eval())


def _one_bucket(lengths):
    return document_buckets([sum(lengths)], CPU)


def test_the_model_is_an_ordinary_one_again_afterwards(make_model):
    model, ids = make_model("qwen3").eval(), torch.tensor([[1, 2, 3], [4, 5, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    before = model(ids, attention_mask=mask).logits
    check_packable(model)
    assert torch.equal(model(ids, attention_mask=mask).logits, before)
    with packed_attention(model), pytest.raises(ModelError, match="not told of documents"):
        model(ids)
