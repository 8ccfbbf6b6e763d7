"""A packed batch through a model: the decoder on all tokens, the head only on the K that predict a trained one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self, TypeAlias

import torch
from transformers import PreTrainedModel

from agent_rl.errors import ModelError
from agent_rl.learner.attention import language_head, packed_hidden
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.head import Head, head_logprobs, head_loss, head_proxies
from agent_rl.learner.lora import merged_weight
from agent_rl.learner.loss_result import LossResult
from agent_rl.learner.objective import Objective
from agent_rl.learner.parts import whole
from agent_rl.learner.tensors import FrozenTokens, PackedTensors, TrainedTokens

HiddenTerm: TypeAlias = Callable[[torch.Tensor, TrainedTokens], LossResult]
"""Of hidden states (K, E) and the tokens that they predict."""


class Precision(NamedTuple):
    """`autocast`: matrix products in bf16; `fp32_head`: but the head's in fp32 (arXiv:2506.13585, arXiv:2510.13786)."""

    autocast: bool
    fp32_head: bool

    @classmethod
    def of(cls, config: LearnerConfig) -> Self:
        """That of a learner."""
        return cls(config.autocast, config.memory.fp32_head)


PLAIN = Precision(autocast=False, fp32_head=False)


@torch.no_grad()
def trained_logprobs(
    model: PreTrainedModel, batch: PackedTensors, temperature: float, precision: Precision = PLAIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the K trained tokens at `temperature`, and the entropy (nats) at each. Without gradient."""
    hidden_KE = _trained_hidden(model, batch, precision)
    return head_logprobs(_head(model, hidden_KE, temperature, precision), hidden_KE, batch.trained.targets_K)


def trained_loss(
    model: PreTrainedModel,
    batch: PackedTensors,
    objective: Objective,
    temperature: float,
    precision: Precision = PLAIN,
    *,
    beside: HiddenTerm | None = None,
) -> LossResult:
    """The objective of the K trained tokens at `temperature`, to differentiate with respect to the model's weights.

    `beside` adds a term of the hidden states that predict them.
    """
    hidden_KE = _trained_hidden(model, batch, precision)
    result = head_loss(_head(model, hidden_KE, temperature, precision), hidden_KE, batch.trained, objective)
    if beside is None:
        return result
    added = beside(hidden_KE, batch.trained)
    return LossResult(result.loss + added.loss, {**result.metrics, **added.metrics})


@torch.no_grad()
def trained_proxies(
    model: PreTrainedModel, batch: PackedTensors, temperature: float, min_p: float, precision: Precision = PLAIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the K trained tokens, and those of Lp-Reg's proxy. Without gradient."""
    hidden_KE = _trained_hidden(model, batch, precision)
    head = _head(model, hidden_KE, temperature, precision)
    return head_proxies(head, hidden_KE, batch.trained.targets_K, min_p)


@torch.no_grad()
def frozen_tokens(
    model: PreTrainedModel, batch: PackedTensors, temperature: float, precision: Precision = PLAIN, *, exact: bool
) -> FrozenTokens:
    """What a frozen model says of the K trained tokens; `exact`: and of the vocabulary, for K * E numbers more."""
    hidden_KE = _trained_hidden(model, batch, precision)
    head = _head(model, hidden_KE, temperature, precision)
    logprobs_K, _ = head_logprobs(head, hidden_KE, batch.trained.targets_K)
    return FrozenTokens(logprobs_K, hidden_KE, head) if exact else FrozenTokens(logprobs_K)


def _trained_hidden(model: PreTrainedModel, batch: PackedTensors, precision: Precision) -> torch.Tensor:
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision.autocast):
        hidden_NE = packed_hidden(model, batch.token_ids_N, batch.position_ids_N, batch.layout)
    return hidden_NE.index_select(0, batch.sources_K)


def _head(model: PreTrainedModel, hidden_KE: torch.Tensor, temperature: float, precision: Precision) -> Head:
    """The head's weights as tensors, adapters merged. Raises `ModelError` when it is not a linear layer."""
    layer = language_head(model)
    linear = getattr(layer, "base_layer", layer)
    if not isinstance(linear, torch.nn.Linear):
        raise ModelError(f"The head of {type(model).__name__} is no linear layer, but a {type(linear).__name__}.")
    dtype = torch.bfloat16 if precision.autocast else hidden_KE.dtype
    if precision.fp32_head:
        dtype = torch.promote_types(hidden_KE.dtype, torch.float32)
    bias_V: torch.Tensor | None = getattr(linear, "bias", None)
    return Head(whole(merged_weight(layer)), None if bias_V is None else whole(bias_V), temperature, dtype)
