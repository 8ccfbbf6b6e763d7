import json

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from agent_rl.errors import ModelError
from agent_rl.learner.config import LoraConfig
from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.learner.policy import load_policy


def make_tokenizer(words=37, chat_template="{{ messages }}"):
    vocabulary = {f"w{i}": i for i in range(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template)


@pytest.fixture
def folder(make_model, tmp_path):
    make_model("qwen3").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_load(folder):
    model, tokenizer = load_policy(folder, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert len(tokenizer) == 37


@pytest.mark.parametrize("config", [LearnerConfig(learning_rate=1e-2), LearnerConfig(lora=LoraConfig())])
def test_a_saved_policy_loads_as_a_plain_model(folder, make_rows, tmp_path, config):
    model, tokenizer = load_policy(folder)
    learner = Learner(model, config)
    learner.step(make_rows([20]))
    learner.save_pretrained(tmp_path / "saved", tokenizer)
    saved, _ = load_policy(tmp_path / "saved")
    assert type(saved) is type(model)
    for name, weight in learner.weights().items():
        assert torch.equal(saved.state_dict()[name], weight)
    assert torch.equal(saved.lm_head.weight, saved.model.embed_tokens.weight)
    ids = torch.arange(9)[None]
    torch.testing.assert_close(saved(ids).logits, learner.model(ids).logits, rtol=1e-4, atol=1e-4)


def test_no_such_folder(tmp_path):
    with pytest.raises(ModelError, match="There is no model folder"):
        load_policy(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"There is no model folder '\./nothing'"):
        load_policy("./nothing")


def test_folder_without_config(tmp_path):
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        load_policy(tmp_path)


def test_unreachable_hub_id(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as error:
        load_policy("nobody/no-such-model")
    assert "nobody/no-such-model" in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_architecture(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    with pytest.raises(ModelError, match="Cannot load a causal language model"):
        load_policy(folder)


def test_not_a_causal_language_model(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match="Cannot load a causal language model"):
        load_policy(folder)


def test_missing_weight_file(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="Cannot load a causal language model"):
        load_policy(folder)


def test_incomplete_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 3
    config["layer_types"] = ["full_attention"] * 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"lacks weights of Qwen3ForCausalLM, such as 'model\.layers\.2"):
        load_policy(folder)


def test_no_chat_template(folder):
    (folder / "chat_template.jinja").unlink()
    make_tokenizer(chat_template=None).save_pretrained(folder)
    with pytest.raises(ModelError, match="no chat template"):
        load_policy(folder)


def test_tokenizer_of_another_model(folder):
    make_tokenizer(words=50).save_pretrained(folder)
    with pytest.raises(ModelError, match="more tokens"):
        load_policy(folder)


def test_bad_dtype(folder):
    with pytest.raises(ModelError, match="'int8' is not a floating-point dtype"):
        load_policy(folder, dtype="int8")
