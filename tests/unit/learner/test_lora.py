import builtins

import pytest
import torch

from agent_rl.errors import ConfigError
from agent_rl.learner.config import LoraConfig
from agent_rl.learner.learner import Learner, LearnerConfig

CONFIG = LearnerConfig(learning_rate=1e-2, lora=LoraConfig(rank=4))
IDS = torch.arange(12)[None] % 37


def plain_logits(model):
    return model.eval()(IDS, use_cache=False).logits


@pytest.fixture
def trained(make_model, make_rows):
    learner = Learner(make_model("qwen3"), CONFIG)
    for seed in range(3):
        learner.step(make_rows([20, 30], seed=seed))
    return learner


def test_adapters_start_at_no_change(make_model):
    expected = plain_logits(make_model("qwen3"))
    learner = Learner(make_model("qwen3"), CONFIG)
    plain = make_model("qwen3")
    plain.load_state_dict(learner.weights(), strict=False)
    assert torch.equal(plain_logits(plain), expected)


def test_only_adapters_are_trained(trained, make_model):
    original = dict(make_model("qwen3").named_parameters())
    changed = set()
    for name, parameter in trained.model.named_parameters():
        if ".lora_" in name:
            assert parameter.requires_grad
            changed.add(name.split(".")[-4])
        else:
            assert not parameter.requires_grad
            assert torch.equal(parameter, original[name.replace(".base_layer", "")])
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert set(trained.state_dict()["trainable"]) == {n for n, _ in trained.model.named_parameters() if ".lora_" in n}


def test_merged_weights_equal_the_adapted_model(trained, make_model):
    expected = plain_logits(trained.model)
    plain = make_model("qwen3")
    assert (plain_logits(plain) - expected).abs().max() > 0.1
    missing, unexpected = plain.load_state_dict(trained.weights(), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    torch.testing.assert_close(plain_logits(plain), expected, rtol=1e-4, atol=1e-4)


def test_a_resumed_adapter_continues_bit_for_bit(trained, make_model, make_rows):
    resumed = Learner(make_model("qwen3"), CONFIG, seed=1)
    resumed.load_state_dict(trained.state_dict())
    for learner in (trained, resumed):
        learner._seed = 0
        learner.step(make_rows([25, 35]))
    for name, weight in trained.weights().items():
        assert torch.equal(weight, resumed.weights()[name])


def test_named_targets(make_model):
    learner = Learner(make_model("qwen3"), LearnerConfig(lora=LoraConfig(targets=("q_proj",))))
    assert all("q_proj" in name for name in learner.state_dict()["trainable"])


def test_targets_that_match_nothing(make_model):
    with pytest.raises(ConfigError, match="match nothing in Qwen3ForCausalLM"):
        Learner(make_model("qwen3"), LearnerConfig(lora=LoraConfig(targets=("c_attn",))))


def test_missing_peft(make_model, monkeypatch):
    real_import = builtins.__import__

    def without_peft(name, *args, **kwargs):
        if name == "peft":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(ConfigError, match=r"pip install 'agent-rl\[lora\]'"):
        Learner(make_model("qwen3"), CONFIG)
