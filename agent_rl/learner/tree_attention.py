"""Attention in a forest on a CPU, exact, without a mask and without copying the keys of shared paths.

What a token sees is its own branch up to itself and, of each branch that it descends from, the beginning up to the
stem. The first is causal attention inside branches; the second are rectangles of consecutive queries and consecutive
keys in which everybody sees everything. Each part is one call of the kernel behind `scaled_dot_product_attention`, and
the parts are joined by their normalisers, as in attention over several devices (ring attention, arXiv:2310.01889):
with lse the log of the sum of exponentials, out = sum over parts of exp(lse_part - lse) * out_part. In the backward
pass each part's gradient is the kernel's own with the joint output and normaliser put in (FlashAttention,
arXiv:2205.14135, algorithm 4, where P = exp(S - lse) and D = rowsum(dO * O)).
Work is that of the visible pairs, extra memory O(N). Shapes: N tokens, H heads, d head size, B branches of length L.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from agent_rl.learner.document_attention import Branches, Bucket, untraced
from agent_rl.learner.forest import Rectangle

_flash: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # pyright: ignore[reportPrivateUsage]
_flash_backward: Any = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # pyright: ignore[reportPrivateUsage]
)


@dataclass(frozen=True, slots=True)
class Forest:
    """A batch in which branches grow from others: `rectangles` are what tokens see outside their own branch."""

    branches: Branches
    rectangles: list[Rectangle]

    @untraced
    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        """`query` is (1, H, N, d), `key` and `value` (1, H / group, N, d); returns (1, N, H, d)."""
        if torch.is_autocast_enabled("cpu"):  # which knows the public function only
            query, key, value = (states.to(torch.get_autocast_dtype("cpu")) for states in (query, key, value))
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        states_NHd = (states[0].transpose(0, 1) for states in (query, key, value))
        return _ForestAttention.apply(*states_NHd, self, scaling).unsqueeze(0)  # type: ignore[no-untyped-call]


class _ForestAttention(torch.autograd.Function):
    """Of query (N, H, d), key and value (N, H / group, d): the attended values (N, H, d)."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # typed by its arguments
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, forest: Forest, scaling: float
    ) -> torch.Tensor:
        states = (query, *_per_head(query, key, value))
        branches = forest.branches
        squares = [_flash(*map(bucket.read, states), is_causal=True, scale=scaling) for bucket in branches.buckets]
        # Parts are added up in the precision of the normalisers: fp32 or better.
        out_NHd = branches.write([out for out, _ in squares]).to(squares[0][1].dtype)
        lse_NH = branches.write([lse for _, lse in squares])
        for rectangle in forest.rectangles:
            part, part_lse = _flash(*_sides(rectangle, *states), scale=scaling)
            rows = slice(rectangle.query_start, rectangle.query_stop)
            _join(out_NHd[rows], lse_NH[rows], part[0].transpose(0, 1), part_lse[0].transpose(0, 1))
        out_NHd = out_NHd.to(query.dtype)
        ctx.save_for_backward(query, key, value, out_NHd, lse_NH)
        ctx.forest, ctx.scaling = forest, scaling
        return out_NHd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHd: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, out_NHd, lse_NH = ctx.saved_tensors
        states = (query, *_per_head(query, key, value))
        branches: Branches = ctx.forest.branches
        squares = [
            _flash_backward(*_bucket_inputs(bucket, grad_NHd, states, out_NHd, lse_NH), 0.0, True, scale=ctx.scaling)
            for bucket in branches.buckets
        ]
        exact = lse_NH.dtype
        grads = [branches.write(of_buckets).to(exact) for of_buckets in zip(*squares, strict=True)]
        for rectangle in ctx.forest.rectangles:
            rows, columns = rectangle.query_start, rectangle.key_start
            own = slice(rows, rectangle.query_stop)
            parts = _flash_backward(
                _as_one(grad_NHd[own]),
                *_sides(rectangle, *states),
                _as_one(out_NHd[own]),
                lse_NH[own].transpose(0, 1).unsqueeze(0),
                0.0,
                False,
                scale=ctx.scaling,
            )
            for grad, part, start in zip(grads, parts, (rows, columns, columns), strict=True):
                grad[start : start + part.shape[2]] += part[0].transpose(0, 1)
        group = query.shape[1] // key.shape[1]
        d_query, d_key, d_value = grads
        d_key, d_value = (grad.unflatten(1, (-1, group)).sum(2) for grad in (d_key, d_value))
        return d_query.to(query.dtype), d_key.to(key.dtype), d_value.to(value.dtype), None, None


def _per_head(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values repeated for each head of their group, as `scaled_dot_product_attention` does on a CPU."""
    group = query.shape[1] // key.shape[1]
    return key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)


def _as_one(states_NHd: torch.Tensor) -> torch.Tensor:
    return states_NHd.transpose(0, 1).unsqueeze(0)


def _sides(
    rectangle: Rectangle, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = slice(rectangle.query_start, rectangle.query_stop)
    columns = slice(rectangle.key_start, rectangle.key_stop)
    return _as_one(query[rows]), _as_one(key[columns]), _as_one(value[columns])


def _join(out: torch.Tensor, lse: torch.Tensor, part: torch.Tensor, part_lse: torch.Tensor) -> None:
    """Add the part to `out` and `lse` in place."""
    joint = torch.logaddexp(lse, part_lse)
    out.mul_((lse - joint).exp_().unsqueeze(-1)).addcmul_((part_lse - joint).exp_().unsqueeze(-1), part)
    lse.copy_(joint)


def _bucket_inputs(
    bucket: Bucket,
    grad_NHd: torch.Tensor,
    states: tuple[torch.Tensor, ...],
    out_NHd: torch.Tensor,
    lse_NH: torch.Tensor,
) -> list[torch.Tensor]:
    """What the kernel's backward takes. Padded queries get no gradient, and no weight: their lse is infinite."""
    grad = bucket.read(grad_NHd)
    lse_BHL = bucket.read(lse_NH.unsqueeze(-1)).squeeze(-1)
    if bucket.padded_BL is not None:
        grad = grad.masked_fill(bucket.padded_BL[:, None, :, None], 0.0)
        lse_BHL = lse_BHL.masked_fill(bucket.padded_BL[:, None], torch.inf)
    return [grad, *map(bucket.read, states), bucket.read(out_NHd), lse_BHL]
