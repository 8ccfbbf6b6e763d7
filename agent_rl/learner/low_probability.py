"""Lp-Reg: unlikely tokens of bad samples are kept alive where they are not noise. Pure functions of tensors.

Low-probability regularisation (arXiv:2510.03222), section 4. A proxy is the policy that the update starts from, without
the tokens that are less than `min_p` times as likely as the likeliest, renormalised. Where A < 0, a trained token is
among the `share` least likely of those, and the proxy finds it likelier than the policy does, the divergence from proxy
to policy is added: as the authors run it, estimated at the token (k3), so that one number per token is all it needs.
"""

from __future__ import annotations

import torch

from agent_rl.learner.penalties import k3


def proxy_logprobs(probs_KV: torch.Tensor, logprobs_K: torch.Tensor, min_p: float) -> torch.Tensor:
    """log p_proxy of the tokens whose `logprobs_K` are given, shape (K,); -inf of those that are filtered out."""
    least_K1 = min_p * probs_KV.amax(-1, keepdim=True)
    kept_K = torch.where(probs_KV >= least_K1, probs_KV, 0).sum(-1)
    is_kept_K = logprobs_K.exp() >= least_K1.squeeze(-1)
    return torch.where(is_kept_K, logprobs_K - kept_K.log(), -torch.inf)


def unlikely(logprobs: torch.Tensor, advantages: torch.Tensor, share: float) -> torch.Tensor:
    """Which tokens are among the `share` least likely of those with a negative advantage, at least one. Shape (K,)."""
    bad = advantages < 0
    count = int(bad.sum())
    if not count:
        return bad
    threshold = logprobs[bad].kthvalue(max(1, int(share * count))).values
    return bad & (logprobs <= threshold)


def lp_reg(logprobs: torch.Tensor, proxy: torch.Tensor) -> torch.Tensor:
    """The term per token; 0 where the proxy, which is -inf for tokens that are left alone, is below the policy."""
    protected = logprobs.detach() < proxy
    return torch.where(protected, k3(logprobs, torch.where(protected, proxy, logprobs.detach())), 0.0)
