"""What saves memory and time layer by layer: recomputed activations, and compiled decoder layers."""

from __future__ import annotations

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from agent_rl.errors import ModelError
from agent_rl.learner.config import MemoryConfig


def decoder_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The equal blocks that the decoder is made of, first to last. Raises `ModelError` when there are none."""
    layers = [m for m in model.get_decoder().modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(f"{type(model).__name__} does not mark its decoder layers, so they cannot be handled singly.")
    return list(layers)


def wrap_layers(model: PreTrainedModel, config: MemoryConfig) -> None:
    """Make each decoder layer compute as `config` says. What it computes, and all names, stay the same."""
    for layer in decoder_layers(model) if config.compile or config.activation_checkpointing else ():
        if config.compile:
            layer.forward = torch.compile(layer.forward, dynamic=True)
        if config.activation_checkpointing:
            # `forward`, not the module: hooks, such as those that gather sharded weights, stay outside.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)


def keep_fp32(model: PreTrainedModel) -> None:
    """Turn trainable weights in half precision into fp32: bf16 would lose an update of 1e-3 of a weight."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.element_size() < 4:
            parameter.data = parameter.data.float()
