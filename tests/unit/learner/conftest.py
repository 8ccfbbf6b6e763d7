from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

from agent_rl.types import TrainingRow

VOCABULARY = 37
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,  # not hidden_size / heads
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # logits far from uniform, so that errors show
}


def build(name: str, dtype: torch.dtype = torch.float32, **options: object) -> PreTrainedModel:
    """A random two-layer model with grouped-query attention."""
    sizes = SIZES | options
    torch.manual_seed(0)
    if name == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, tie_word_embeddings=True))
    elif name == "qwen2":
        del sizes["head_dim"]
        model = Qwen2ForCausalLM(Qwen2Config(**sizes))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    return model.to(dtype)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    return build


def random_rows(lengths: list[int], seed: int = 0) -> list[TrainingRow]:
    """Rows of these lengths with alternating context and sampled spans, all weights equal."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        mask_T = rng.random(length) < 0.5
        mask_T[0], mask_T[length // 2] = False, True
        rows.append(
            TrainingRow(
                token_ids_T=rng.integers(0, VOCABULARY, length).astype(np.int32),
                response_mask_T=mask_T,
                rollout_logprobs_T=np.where(mask_T, -np.log(VOCABULARY) + rng.normal(0, 0.3, length), 0).astype("f4"),
                advantages_T=np.where(mask_T, rng.normal(), 0).astype("f4"),
                weights_T=mask_T.astype("f4"),
                weight_versions_T=np.where(mask_T, 0, -1).astype("i4"),
            )
        )
    return rows


@pytest.fixture
def make_rows() -> Callable[..., list[TrainingRow]]:
    return random_rows
