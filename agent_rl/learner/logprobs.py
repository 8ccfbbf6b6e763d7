"""Log-probs and entropy of a packed batch, only where a token is trained.

The decoder runs on all tokens, the language-model head only on the K hidden states that predict a trained token, in
chunks of bounded size that are recomputed in the backward pass: peak memory does not grow with K * vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from agent_rl.learner.attention import Bucket, document_buckets, language_head, packed_hidden
from agent_rl.learner.batch import PackedBatch

LOGITS_PER_CHUNK = 2**24
"""fp32 logits held at once: 64 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedTensors:
    """A `PackedBatch` on the model's device. `old_logprobs_K` are the sampler's until somebody recomputes them."""

    token_ids_N: torch.Tensor
    position_ids_N: torch.Tensor
    buckets: list[Bucket]
    sources_K: torch.Tensor
    targets_K: torch.Tensor
    weights_K: torch.Tensor
    advantages_K: torch.Tensor
    rollout_logprobs_K: torch.Tensor
    old_logprobs_K: torch.Tensor
    documents_K: torch.Tensor
    reference_logprobs_K: torch.Tensor | None = None


def to_tensors(batch: PackedBatch, device: torch.device, total_weight: float = 1.0) -> PackedTensors:
    """Copy `batch` to `device`, dividing its weights by `total_weight`."""

    def long(array: object) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.long, device=device)

    def real(array: object) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    rollout_logprobs_K = real(batch.rollout_logprobs_K)
    return PackedTensors(
        token_ids_N=long(batch.token_ids_N),
        position_ids_N=long(batch.position_ids_N),
        buckets=document_buckets(batch.lengths_D.tolist(), device),
        sources_K=long(batch.sources_K),
        targets_K=long(batch.targets_K),
        weights_K=real(batch.weights_K) / total_weight,
        advantages_K=real(batch.advantages_K),
        rollout_logprobs_K=rollout_logprobs_K,
        old_logprobs_K=rollout_logprobs_K,
        documents_K=long(batch.documents_K),
    )


def trained_logprobs(
    model: PreTrainedModel, batch: PackedTensors, temperature: float, *, entropy_gradient: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the K trained tokens at `temperature`, and the entropy (nats; a gradient only if asked) at each."""
    hidden_NE = packed_hidden(model, batch.token_ids_N, batch.position_ids_N, batch.buckets)
    hidden_KE = hidden_NE.index_select(0, batch.sources_K)
    head = language_head(model)
    chunk = max(1, LOGITS_PER_CHUNK // model.config.get_text_config().vocab_size)
    pairs = list(zip(hidden_KE.split(chunk), batch.targets_K.split(chunk), strict=True))
    if len(pairs) == 1:  # fits as it is: recomputing would only cost time
        return _head_logprobs(head, hidden_KE, batch.targets_K, temperature, entropy_gradient)
    parts = [
        checkpoint(
            _head_logprobs,
            head,
            hidden,
            targets,
            temperature,
            entropy_gradient,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for hidden, targets in pairs
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _head_logprobs(
    head: torch.nn.Module,
    hidden_KE: torch.Tensor,
    targets_K: torch.Tensor,
    temperature: float,
    entropy_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits_KV = head(hidden_KE)
    if logits_KV.dtype != torch.float64:
        logits_KV = logits_KV.float()
    if temperature != 1.0:  # a pass over all logits, and another in the backward
        logits_KV = logits_KV / temperature
    logprobs_KV = log_softmax(logits_KV, dim=-1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy_K = -(logprobs_KV.exp() * logprobs_KV).sum(-1)
    return logprobs_KV.gather(1, targets_K[:, None]).squeeze(1), entropy_K
