"""One forward of the model over neighbouring rows of the cache. Checks what kind of model this can be done with."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent_rl.engine.local.cache import SlotCache
from agent_rl.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Forward:
    """`model` and its cache. Any rows `[first, first + B)` can be computed together, each at its own positions."""

    def __init__(self, model: PreTrainedModel, rows: int, capacity: int) -> None:
        config: Any = model.config.get_text_config()
        self.model = model
        self.cache = SlotCache(config.num_hidden_layers, rows, capacity)
        self._last_only = {}
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            self._last_only = {"logits_to_keep": 1}

    def __call__(self, first: int, ids_BS: NDArray[np.int64], positions_BS: NDArray[np.int64]) -> torch.Tensor:
        """Logits [B, V] after the last of `ids_BS`; position -1 marks padding, which stands on the left.

        Keys and values of the new tokens are written to the cache, where those of all earlier positions must be.
        """
        device = self.model.device
        width = int(positions_BS.max()) + 1
        columns_BS = torch.from_numpy(positions_BS).to(device)
        self.cache.aim(first, columns_BS, width)
        positions = columns_BS.clamp(min=0)
        hidden = torch.arange(width, device=device) > positions[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=device)
        output: Any = self.model(
            input_ids=torch.from_numpy(ids_BS).to(device),
            position_ids=positions,
            attention_mask=mask.masked_fill_(hidden, torch.finfo(mask.dtype).min),
            past_key_values=self.cache,
            use_cache=True,
            **self._last_only,
        )
        return output.logits[:, -1]


def check_model(model: PreTrainedModel, max_context: int) -> None:
    """Raise `ModelError` or `ConfigError` for a model whose attention cannot be served from rows of keys and values."""
    config: Any = model.config.get_text_config()
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ModelError(f"{name} is an encoder-decoder model; the local engine serves decoder-only models.")
    special = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if special:
        raise ModelError(f"{name} has {', '.join(sorted(special))} layers; the local engine needs full attention.")
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and window < max_context:
        raise ConfigError(f"max_context={max_context} exceeds the sliding window of {name}: use at most {window}.")
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < max_context:
        raise ConfigError(f"max_context={max_context} exceeds the positions of {name}: use at most {positions}.")
    attention = str(getattr(config, "_attn_implementation", None))
    if attention.startswith(("flash", "flex", "paged")):
        raise ConfigError(f"{name} uses {attention!r} attention; load it with attn_implementation='sdpa'.")
