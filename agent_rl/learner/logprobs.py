"""A packed batch through a model: the decoder on all tokens, the head only on the K that predict a trained one."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from agent_rl.errors import ModelError
from agent_rl.learner.attention import language_head, packed_hidden
from agent_rl.learner.head import Head, head_logprobs, head_loss
from agent_rl.learner.lora import merged_weight
from agent_rl.learner.losses import LossResult
from agent_rl.learner.objective import Objective
from agent_rl.learner.tensors import PackedTensors


@torch.no_grad()
def trained_logprobs(
    model: PreTrainedModel, batch: PackedTensors, temperature: float, *, autocast: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the K trained tokens at `temperature`, and the entropy (nats) at each. Without gradient."""
    hidden_KE = _trained_hidden(model, batch, autocast)
    return head_logprobs(_head(model, hidden_KE, temperature, autocast), hidden_KE, batch.trained.targets_K)


def trained_loss(
    model: PreTrainedModel, batch: PackedTensors, objective: Objective, temperature: float, *, autocast: bool = False
) -> LossResult:
    """The objective of the K trained tokens at `temperature`, to differentiate with respect to the model's weights."""
    hidden_KE = _trained_hidden(model, batch, autocast)
    return head_loss(_head(model, hidden_KE, temperature, autocast), hidden_KE, batch.trained, objective)


def _trained_hidden(model: PreTrainedModel, batch: PackedTensors, autocast: bool) -> torch.Tensor:
    with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
        hidden_NE = packed_hidden(model, batch.token_ids_N, batch.position_ids_N, batch.layout)
    return hidden_NE.index_select(0, batch.sources_K)


def _head(model: PreTrainedModel, hidden_KE: torch.Tensor, temperature: float, autocast: bool) -> Head:
    """The head's weights as tensors, adapters merged. Raises `ModelError` when it is not a linear layer."""
    layer = language_head(model)
    linear = getattr(layer, "base_layer", layer)
    if not isinstance(linear, torch.nn.Linear):
        raise ModelError(f"The head of {type(model).__name__} is no linear layer, but a {type(linear).__name__}.")
    return Head(merged_weight(layer), linear.bias, temperature, torch.bfloat16 if autocast else hidden_KE.dtype)
