"""What the benchmarks of the learner share: an 11M-parameter Qwen3, and training rows of given tokens."""

import numpy as np
from transformers import Qwen3Config

from agent_rl.types import TrainingRow

CONFIG = Qwen3Config(
    vocab_size=12_288,
    hidden_size=384,
    intermediate_size=1024,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)


def training_row(ids_T: np.ndarray, sampled_T: np.ndarray, advantage: float, vocabulary: int) -> TrainingRow:
    """A row that a uniform policy sampled where `sampled_T` says so, with weight 1 there."""
    return TrainingRow(
        token_ids_T=ids_T.astype(np.int32),
        response_mask_T=sampled_T,
        rollout_logprobs_T=np.where(sampled_T, -np.log(vocabulary), 0).astype(np.float32),
        advantages_T=np.where(sampled_T, advantage, 0).astype(np.float32),
        weights_T=sampled_T.astype(np.float32),
        weight_versions_T=np.where(sampled_T, 0, -1).astype(np.int32),
    )
