"""Causal attention inside each document of a packed batch, for any transformers model with pluggable attention.

A block mask over the packed row costs O(N^2) and hides the causal structure from fast kernels. Instead the documents,
which a packed batch holds longest first, are cut into buckets of nearly equal length, and each bucket is one batched
causal SDPA call. Padding a document on the right is exact: under a causal mask no real query sees a later key, and what
the padded queries compute is thrown away. One form for all devices. Shapes: N tokens, H heads, d head size.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from agent_rl.errors import ModelError

PACKED = "agent_rl_packed"

LENGTH_SLACK = 32
"""Documents whose lengths differ by less than this share a call."""

UNSUPPORTED = ("sliding_window", "s_aux", "softcap", "position_bias")
"""Options of transformers' attention functions that this one does not implement."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Documents `start:stop` (flat positions in the batch), seen as `documents` rows of `length` tokens.

    `gather` reads that padded layout from the batch, `scatter` takes the real tokens back out of it; both are None
    when all documents have the same length.
    """

    start: int
    stop: int
    documents: int
    length: int
    gather: torch.Tensor | None
    scatter: torch.Tensor | None


def document_buckets(lengths: Sequence[int], device: torch.device) -> list[Bucket]:
    """Bucket documents laid end to end, longest first, by nearly equal length."""
    buckets: list[Bucket] = []
    first, start = 0, 0
    while first < len(lengths):
        last = first
        while last < len(lengths) and lengths[last] > lengths[first] - LENGTH_SLACK:
            last += 1
        buckets.append(_bucket(start, lengths[first:last], device))
        first, start = last, buckets[-1].stop
    return buckets


def _bucket(start: int, lengths: Sequence[int], device: torch.device) -> Bucket:
    length, stop = lengths[0], start + sum(lengths)
    if lengths[-1] == length:
        return Bucket(start, stop, len(lengths), length, None, None)
    lengths_D = torch.tensor(lengths)
    starts_D = start + lengths_D.cumsum(0) - lengths_D
    offsets = torch.arange(length)
    real_DL = offsets < lengths_D[:, None]
    gather_DL = torch.where(real_DL, starts_D[:, None] + offsets, start)
    scatter = real_DL.flatten().nonzero().squeeze(1)
    return Bucket(start, stop, len(lengths), length, gather_DL.flatten().to(device), scatter.to(device))


@torch.compiler.disable  # the documents of each batch differ: it would be compiled anew for each
def attend_documents(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    buckets: Sequence[Bucket] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """A transformers attention function. `query` is (1, H, N, d), `key` and `value` (1, H / group, N, d).

    Returns (1, N, H, d). Raises `ModelError` for what only another attention function can do.
    """
    if buckets is None or attention_mask is not None:
        raise ModelError(f"{type(module).__name__} is not told of documents, so it cannot be trained packed.")
    for name in UNSUPPORTED:
        if options.get(name) is not None:
            raise ModelError(f"{type(module).__name__} uses {name}={options[name]!r}, which packed training cannot do.")
    states_NHd = [states[0].transpose(0, 1) for states in (query, key, value)]
    outputs = [
        _write(
            scaled_dot_product_attention(
                *(_read(states, bucket) for states in states_NHd),
                dropout_p=dropout,
                is_causal=True,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            ),
            bucket,
        )
        for bucket in buckets
    ]
    return torch.cat(outputs).unsqueeze(0), None


def _read(states_NHd: torch.Tensor, bucket: Bucket) -> torch.Tensor:
    """The bucket's documents as (documents, H, length, d)."""
    span, gather = slice(bucket.start, bucket.stop), bucket.gather
    rows = states_NHd[span] if gather is None else states_NHd.index_select(0, gather)
    return rows.unflatten(0, (bucket.documents, bucket.length)).transpose(1, 2)


def _write(attended_DHLd: torch.Tensor, bucket: Bucket) -> torch.Tensor:
    """The bucket's real tokens as (stop - start, H, d)."""
    rows = attended_DHLd.transpose(1, 2).flatten(0, 1)
    return rows if bucket.scatter is None else rows.index_select(0, bucket.scatter)


def packed_hidden(
    model: PreTrainedModel, token_ids_N: torch.Tensor, position_ids_N: torch.Tensor, buckets: Sequence[Bucket]
) -> torch.Tensor:
    """Last hidden states (N, hidden size) of a packed batch, without the language-model head."""
    # With a cache (the default) transformers would not restart documents, and keep every layer's keys for nothing.
    output = model.get_decoder()(
        input_ids=token_ids_N.unsqueeze(0), position_ids=position_ids_N.unsqueeze(0), use_cache=False, buckets=buckets
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
    AttentionInterface.register(PACKED, attend_documents)
    ordinary = model.config._attn_implementation or "eager"  # pyright: ignore[reportPrivateUsage]  # the only getter
    model.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        model.set_attn_implementation(ordinary)


@torch.no_grad()
def check_packable(model: PreTrainedModel) -> None:
    """Prove on a few tokens that packing computes what the model means.

    Raises `ModelError` for models that mix tokens elsewhere (sliding windows, convolutions, recurrences), that change
    their logits after the head, or that do not take their attention function from transformers.
    """
    lengths = (5, 3)
    token_ids_N = torch.arange(8, device=model.device) % model.config.get_text_config().vocab_size
    position_ids_N = torch.cat([torch.arange(length, device=model.device) for length in lengths])
    expected = torch.cat([model(ids.unsqueeze(0), use_cache=False).logits[0] for ids in token_ids_N.split(lengths)])
    with packed_attention(model):
        hidden = packed_hidden(model, token_ids_N, position_ids_N, document_buckets(lengths, model.device))
    error = (language_head(model)(hidden) - expected).abs().max()
    # A leak changes the first digits. Norms and softmax are in fp32 even in a fp64 model.
    rounding = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)
    if not error <= rounding**0.5 * expected.abs().max():
        raise ModelError(
            f"{type(model).__name__} cannot be trained packed: its tokens see other documents, or its logits are not a "
            "plain projection of its last hidden state."
        )
