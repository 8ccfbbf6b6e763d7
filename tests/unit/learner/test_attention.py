import numpy as np
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
from agent_rl.learner import tree_attention
from agent_rl.learner.attention import attend_packed, check_packable, make_layout, packed_attention, packed_hidden
from agent_rl.learner.document_attention import make_branches
from agent_rl.learner.flex_attention import make_flex_forest
from agent_rl.learner.forest import Rectangle, subtree_ends

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


def flat(lengths):
    return np.array(lengths, np.int32), np.full(len(lengths), -1, np.int32)


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "qwen2"])
@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], [70, 69, 40, 39, 38, 3, 1], [33, 1], [64, 32, 16], [3, 70, 1, 69]])
def test_each_document_sees_only_itself(make_model, architecture, lengths):
    model = make_model(architecture, torch.float64).eval()
    torch.manual_seed(1)
    documents = [torch.randint(0, 37, (length,)) for length in lengths]
    expected = torch.cat([model.model(ids[None], use_cache=False).last_hidden_state[0] for ids in documents])
    positions = torch.cat([torch.arange(length) for length in lengths])
    with packed_attention(model):
        hidden = packed_hidden(model, torch.cat(documents), positions, make_layout(*flat(lengths), CPU))
    torch.testing.assert_close(hidden, expected, rtol=1e-9, atol=1e-9)


def test_the_models_own_scaling_is_used(make_model):
    model = make_model("qwen3", torch.float64).eval()
    for layer in model.model.layers:
        layer.self_attn.scaling = 0.9
    check_packable(model)  # compares with transformers' own attention


def test_buckets_cover_the_batch_with_little_padding():
    branches = make_branches(np.array(sorted([100, 100, 90, 69, 68, 30, 4, 1], reverse=True)), CPU)
    assert [(bucket.start, bucket.branches, bucket.length) for bucket in branches.buckets] == [
        (0, 4, 100),
        (359, 1, 68),
        (427, 3, 30),
    ]
    assert branches.buckets[1].gather is None  # nothing to pad
    assert make_branches(np.array([50, 50, 7, 7]), CPU).order_N is None  # nothing to put back in order


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_forest_is_the_dense_mask_on_cpu_and_in_flex_attention():
    """A trunk of 300 tokens, branches off it and off each other, another tree: values, and gradients on the CPU."""
    torch.manual_seed(0)
    lengths, stems = np.array([300, 40, 7, 200, 130, 1]), np.array([-1, 290, 310, 100, -1, 600])
    ends_N, tokens = subtree_ends(lengths, stems), np.arange(lengths.sum())
    mask = torch.from_numpy((tokens <= tokens[:, None]) & (tokens[:, None] < ends_N))
    states = [torch.randn(1, heads, len(tokens), 16, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    expected = sdpa(*states, attn_mask=mask, enable_gqa=True, scale=0.3).transpose(1, 2)
    seed = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, states, seed)
    layout = make_layout(lengths, stems, CPU)
    assert isinstance(layout, tree_attention.Forest)
    found = layout.attend(*states, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found, states, seed), expected_grads, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        flex = make_flex_forest(ends_N, CPU).attend(*(state.detach() for state in states), 0.3)
    torch.testing.assert_close(flex, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("trunk", [300, 2000, 301])
def test_flex_attention_has_the_gradients_of_the_dense_mask(trunk):
    torch.manual_seed(0)
    lengths, stems = np.array([trunk, 40, 7, 200, 130, 1]), np.array([-1, trunk - 10, trunk + 10, 100, -1, trunk + 300])
    ends_N, tokens = subtree_ends(lengths, stems), np.arange(lengths.sum())
    mask = torch.from_numpy((tokens <= tokens[:, None]) & (tokens[:, None] < ends_N)).cuda()
    states = [torch.randn(1, heads, len(tokens), 64, device="cuda", requires_grad=True) for heads in (4, 2, 2)]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    expected = sdpa(*states, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    seed = torch.randn_like(expected)
    layout = make_layout(lengths, stems, torch.device("cuda"))
    found = layout.attend(*states, None)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    for ours, theirs in zip(*(torch.autograd.grad(out, states, seed) for out in (found, expected)), strict=True):
        assert (ours - theirs).norm() < 2e-3 * theirs.norm()


def test_dropout_is_refused():
    with pytest.raises(ModelError, match=r"model\.eval"):
        attend_packed(
            torch.nn.Identity(),
            *[torch.zeros(1, 1, 1, 1)] * 3,
            None,
            dropout=0.1,
            layout=make_branches(np.array([1]), CPU),
        )


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
    monkeypatch.setattr("agent_rl.learner.attention.make_branches", lambda lengths, device: _one_branch(lengths))
    with pytest.raises(ModelError, match="see other documents"):
        check_packable(make_model("qwen3").eval())


def _one_branch(lengths):
    return make_branches(np.array([lengths.sum()]), CPU)


@pytest.mark.parametrize("broken", [[], [(8, 12, 0, 3)], [(5, 8, 0, 4)]], ids=["unshared", "leak", "too much"])
def test_a_tree_in_which_tokens_see_others_is_found(make_model, monkeypatch, broken):
    wrong = [Rectangle(*sides) for sides in broken]
    monkeypatch.setattr("agent_rl.learner.attention.rectangles", lambda lengths, stems: wrong)
    with pytest.raises(ModelError, match="see other documents"):
        check_packable(make_model("qwen3").eval())


def test_the_model_is_an_ordinary_one_again_afterwards(make_model):
    model, ids = make_model("qwen3").eval(), torch.tensor([[1, 2, 3], [4, 5, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    before = model(ids, attention_mask=mask).logits
    check_packable(model)
    assert torch.equal(model(ids, attention_mask=mask).logits, before)
    with packed_attention(model), pytest.raises(ModelError, match="not told of documents"):
        model(ids)
