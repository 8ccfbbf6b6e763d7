"""Log-probs and entropy of a packed batch, only where a token is trained.

The decoder runs on all tokens, the language-model head only on the K hidden states that predict a trained token, in
chunks of bounded size that are recomputed in the backward pass: peak memory does not grow with K * vocabulary.
"""

from __future__ import annotations

import torch
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from agent_rl.learner.attention import language_head, packed_hidden
from agent_rl.learner.tensors import PackedTensors

LOGITS_PER_CHUNK = 2**24
"""fp32 logits held at once: 64 MiB."""


def trained_logprobs(
    model: PreTrainedModel, batch: PackedTensors, temperature: float, *, entropy_gradient: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the K trained tokens at `temperature`, and the entropy (nats; a gradient only if asked) at each."""
    hidden_NE = packed_hidden(model, batch.token_ids_N, batch.position_ids_N, batch.layout)
    hidden_KE = hidden_NE.index_select(0, batch.sources_K)
    head = language_head(model)
    chunk = max(1, LOGITS_PER_CHUNK // model.config.get_text_config().vocab_size)
    pairs = list(zip(hidden_KE.split(chunk), batch.trained.targets_K.split(chunk), strict=True))
    if len(pairs) == 1:  # fits as it is: recomputing would only cost time
        return _head_logprobs(head, hidden_KE, batch.trained.targets_K, temperature, entropy_gradient)
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
