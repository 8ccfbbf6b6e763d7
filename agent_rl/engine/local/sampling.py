"""From logits to token ids and log-probs, for all rows at once. Knows nothing of requests, caches or models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from agent_rl.seeding import stream
from agent_rl.types import SamplingParams

_BLOCK = 64


def uniforms(seed: int) -> Iterator[float]:
    """Endless uniforms in [0, 1) of one response's own stream: one is consumed per sampled token."""
    generator = stream(seed)
    while True:
        yield from generator.random(_BLOCK).tolist()


@torch.no_grad()
def sample(
    logits_NV: torch.Tensor, params_N: Sequence[SamplingParams], uniforms_N: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sampled ids (int64) and their log-probs (fp32), both of shape [N].

    The log-prob is `log_softmax(logits / temperature)` in fp32 *before* top-k and top-p truncation, which is what a
    trainer recomputes. Greedy rows (temperature 0) report the log-prob at temperature 1. Row `n` depends on
    `logits_NV[n]`, `params_N[n]` and `uniforms_N[n]` alone.
    """
    device = logits_NV.device
    kinds = {(params.temperature, params.top_k > 0 or params.top_p < 1.0) for params in params_N}
    logits_NV = logits_NV.float()
    if any(temperature not in (0.0, 1.0) for temperature, _ in kinds):
        temperatures_N = torch.tensor([params.temperature or 1.0 for params in params_N], device=device)
        logits_NV = logits_NV / temperatures_N[:, None]
    logprobs_NV = logits_NV.log_softmax(-1)
    probs_NV = logprobs_NV.exp()
    if any(truncated for _, truncated in kinds):
        probs_NV = _truncate(probs_NV, params_N)
    ids_N = _inverse_cdf(probs_NV, torch.tensor(uniforms_N, dtype=torch.float32, device=device))
    if any(temperature == 0.0 for temperature, _ in kinds):
        greedy_N = torch.tensor([params.temperature == 0.0 for params in params_N], device=device)
        ids_N = torch.where(greedy_N, logprobs_NV.argmax(-1), ids_N)
    return ids_N, logprobs_NV.gather(-1, ids_N[:, None])[:, 0]


def _truncate(probs_NV: torch.Tensor, params_N: Sequence[SamplingParams]) -> torch.Tensor:
    """Zero what top-k leaves out, then what top-p leaves out of the rest; the likeliest token always stays."""
    vocab = probs_NV.shape[-1]
    device = probs_NV.device
    top_k_N = torch.tensor([params.top_k if params.top_k > 0 else vocab for params in params_N], device=device)
    top_p_N = torch.tensor([params.top_p for params in params_N], device=device)
    sorted_NV, order_NV = torch.sort(probs_NV, dim=-1, descending=True, stable=True)
    sorted_NV = sorted_NV * (torch.arange(vocab, device=device) < top_k_N[:, None])
    mass_before_NV = sorted_NV.cumsum(-1) - sorted_NV
    keep_NV = mass_before_NV < top_p_N[:, None] * sorted_NV.sum(-1, keepdim=True)
    keep_NV[:, 0] = True
    return torch.zeros_like(probs_NV).scatter(-1, order_NV, sorted_NV * keep_NV)


def _inverse_cdf(probs_NV: torch.Tensor, uniforms_N: torch.Tensor) -> torch.Tensor:
    """The first token whose cumulative probability exceeds `uniform * total`: never one of probability zero."""
    cdf_NV = probs_NV.cumsum(-1)
    total_N = cdf_NV[:, -1:]
    # Rounding can lift `uniform * total` up to `total`, which nothing exceeds: stay one step below it.
    below_N = torch.nextafter(total_N, torch.zeros_like(total_N))
    target_N = torch.minimum(uniforms_N[:, None] * total_N, below_N)
    ids_N = torch.searchsorted(cdf_NV, target_N, right=True)[:, 0].clamp_(max=probs_NV.shape[-1] - 1)
    if not probs_NV.is_cpu:
        # A parallel scan rounds differently at each position, so that it may step up at a token of probability zero.
        possible_N = probs_NV.gather(-1, ids_N[:, None])[:, 0] > 0
        ids_N = torch.where(possible_N, ids_N, probs_NV.argmax(-1))
    return ids_N
