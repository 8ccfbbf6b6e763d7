from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

VOCAB = 97
_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 1024,
}
_KINDS = {"qwen3": (Qwen3ForCausalLM, Qwen3Config), "llama": (LlamaForCausalLM, LlamaConfig)}


def _tiny(kind: str, seed: int = 0) -> PreTrainedModel:
    """A random model of two layers whose distributions are far from uniform."""
    model_class, config_class = _KINDS[kind]
    torch.manual_seed(seed)
    model = model_class(config_class(**_SHAPE, pad_token_id=None, bos_token_id=None, eos_token_id=None))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    torch.set_num_threads(1)
    return _tiny


@pytest.fixture(scope="session", params=sorted(_KINDS))
def model(request: pytest.FixtureRequest, tiny_model: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture(scope="session")
def qwen3(tiny_model: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    return tiny_model("qwen3")
