"""Attention inside a packed batch, for any transformers model with pluggable attention.

Knows transformers: how a model is made to use a batch's own layout, and how to prove that it computes the same.
Refuses to know how attention is computed: each layout does that itself.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel

from agent_rl.errors import ModelError
from agent_rl.learner.document_attention import make_branches
from agent_rl.learner.flex_attention import make_flex_forest
from agent_rl.learner.forest import rectangles, subtree_ends
from agent_rl.learner.tree_attention import Forest
from agent_rl.types import IntArray

PACKED = "agent_rl_packed"

UNSUPPORTED = ("sliding_window", "s_aux", "softcap", "position_bias")
"""Options of transformers' attention functions that this one does not implement."""


class Layout(Protocol):
    """Who sees whom in a batch."""

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        """`query` is (1, H, N, d), `key` and `value` (1, H / group, N, d); returns (1, N, H, d)."""
        ...


def make_layout(lengths_B: IntArray, stems_B: IntArray, device: torch.device) -> Layout:
    """The fastest exact layout of a forest (see `agent_rl.learner.forest`) on `device`."""
    if (stems_B < 0).all():
        return make_branches(lengths_B, device)
    if device.type == "cpu":
        return Forest(make_branches(lengths_B, device), rectangles(lengths_B, stems_B))
    return make_flex_forest(subtree_ends(lengths_B, stems_B), device)


def attend_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """A transformers attention function. `query` is (1, H, N, d), `key` and `value` (1, H / group, N, d).

    Returns (1, N, H, d). Raises `ModelError` for what only another attention function can do.
    """
    if layout is None or attention_mask is not None:
        raise ModelError(f"{type(module).__name__} is not told of documents, so it cannot be trained packed.")
    for name in UNSUPPORTED:
        if options.get(name) is not None:
            raise ModelError(f"{type(module).__name__} uses {name}={options[name]!r}, which packed training cannot do.")
    if dropout:
        raise ModelError(f"{type(module).__name__} drops attention weights: call model.eval() to train it packed.")
    return layout.attend(query, key, value, scaling), None


def packed_hidden(
    model: PreTrainedModel, token_ids_N: torch.Tensor, position_ids_N: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """Last hidden states (N, hidden size) of a packed batch, without the language-model head."""
    # With a cache (the default) transformers would not restart documents, and keep every layer's keys for nothing.
    output = model.get_decoder()(
        input_ids=token_ids_N.unsqueeze(0), position_ids=position_ids_N.unsqueeze(0), use_cache=False, layout=layout
    )
    return output.last_hidden_state[0]


def language_head(model: PreTrainedModel) -> torch.nn.Module:
    """The projection from hidden states to logits. Raises `ModelError` when the model has none."""
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(model).__name__} has no language-model head: it is not a causal language model.")
    return head


@contextmanager
def packed_attention(model: PreTrainedModel) -> Generator[None]:
    """Inside, `packed_hidden` (and its backward pass) works on `model`, and nothing else does."""
    AttentionInterface.register(PACKED, attend_packed)
    ordinary = model.config._attn_implementation or "eager"  # pyright: ignore[reportPrivateUsage]  # the only getter
    model.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        model.set_attn_implementation(ordinary)


@torch.no_grad()
def check_packable(model: PreTrainedModel) -> None:
    """Prove on a few tokens that packing, and sharing what rows begin with, computes what the model means.

    Raises `ModelError` for models that mix tokens elsewhere (sliding windows, convolutions, recurrences), that change
    their logits after the head, or that do not take their attention function from transformers.
    """
    for stems in ((-1, -1, -1), (-1, 2, -1)):  # apart, and the second going on from the third token of the first
        _check_layout(model, (5, 3, 4), stems)


def _check_layout(model: PreTrainedModel, lengths: Sequence[int], stems: Sequence[int]) -> None:
    """Compare a forest whose stems are all in its first branch with each branch's path on its own."""
    token_ids_N = torch.arange(sum(lengths), device=model.device) % model.config.get_text_config().vocab_size
    paths = [
        torch.cat([token_ids_N[: stem + 1], own]) for stem, own in zip(stems, token_ids_N.split(lengths), strict=True)
    ]
    alone = [model(path.unsqueeze(0), use_cache=False).logits[0] for path in paths]
    expected = torch.cat([logits[stem + 1 :] for logits, stem in zip(alone, stems, strict=True)])
    positions = [torch.arange(stem + 1, len(path)) for path, stem in zip(paths, stems, strict=True)]
    layout = make_layout(np.array(lengths, np.int32), np.array(stems, np.int32), model.device)
    with packed_attention(model):
        hidden = packed_hidden(model, token_ids_N, torch.cat(positions).to(model.device), layout)
    error = (language_head(model)(hidden) - expected).abs().max()
    # A leak changes the first digits. Norms and softmax are in fp32 even in a fp64 model.
    rounding = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)
    if not error <= rounding**0.5 * expected.abs().max():
        raise ModelError(
            f"{type(model).__name__} cannot be trained packed: its tokens see other documents, or its logits are not a "
            "plain projection of its last hidden state."
        )
