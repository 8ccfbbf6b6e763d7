"""The language-model head as an objective sees it: log-probs, entropies and gradients, a chunk of tokens at a time.

What a step minimises is a sum over trained tokens, so a chunk's gradient is known as soon as its log-probs are: it is
taken while its logits exist, in place, and nothing is stored or computed again for a backward pass. The matrix products
are those of the naive head, 6 K V E FLOP; the memory is one chunk of logits beside the gradients themselves.
Knows tensors; refuses to know models. Shapes: K trained tokens, V vocabulary, E hidden size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from agent_rl.learner.loss_result import LossResult
from agent_rl.learner.low_probability import proxy_logprobs
from agent_rl.learner.objective import Objective
from agent_rl.learner.tensors import TrainedTokens

LOGITS_PER_CHUNK = 2**24
"""Logits held at once: 64 MiB in fp32."""

LOGITS_PER_BLOCK = 2**19
"""Logits that one element-wise operation works on: 2 MiB in fp32, so that the next one finds them in a CPU's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """logits = (hidden @ weight' + bias) / temperature: products in `dtype`, all else in fp32 at least."""

    weight_VE: torch.Tensor
    bias_V: torch.Tensor | None
    temperature: float
    dtype: torch.dtype

    def chunks(self, tokens: int) -> list[slice]:
        """`tokens` in spans whose logits fit `LOGITS_PER_CHUNK`."""
        size = max(1, LOGITS_PER_CHUNK // len(self.weight_VE))
        return [slice(start, start + size) for start in range(0, tokens, size)]

    def logits(self, hidden_KE: torch.Tensor) -> torch.Tensor:
        """A new tensor, shape (K, V)."""
        logits_KV = hidden_KE.to(self.dtype) @ self.weight_VE.to(self.dtype).T
        if logits_KV.dtype != torch.float64:
            logits_KV = logits_KV.float()
        if self.bias_V is not None:
            logits_KV += self.bias_V
        return logits_KV if self.temperature == 1.0 else logits_KV.div_(self.temperature)


@dataclass(frozen=True, slots=True, eq=False)
class _Slopes:
    """The derivatives of a loss with respect to each log-prob and, if it has any, to each entropy."""

    logprobs_K: torch.Tensor
    entropy_K: torch.Tensor | None

    def part(self, span: slice) -> Self:
        return type(self)(self.logprobs_K[span], None if self.entropy_K is None else self.entropy_K[span])


@torch.no_grad()
def head_logprobs(head: Head, hidden_KE: torch.Tensor, targets_K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the targets and entropies (nats), shapes (K,). Without gradient."""
    spans = head.chunks(len(hidden_KE))
    parts = [_softmax_(head.logits(hidden_KE[span]), targets_K[span]) for span in spans]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


@torch.no_grad()
def head_proxies(
    head: Head, hidden_KE: torch.Tensor, targets_K: torch.Tensor, min_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the targets, and those of Lp-Reg's proxy (see `low_probability`), shapes (K,). Without gradient."""
    parts = list[tuple[torch.Tensor, torch.Tensor]]()
    for span in head.chunks(len(hidden_KE)):
        probs_KV = head.logits(hidden_KE[span])
        logprobs_K, _ = _softmax_(probs_KV, targets_K[span])
        parts.append((logprobs_K, proxy_logprobs(probs_KV, logprobs_K, min_p)))
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([proxies for _, proxies in parts])


def head_loss(head: Head, hidden_KE: torch.Tensor, tokens: TrainedTokens, objective: Objective) -> LossResult:
    """The objective's value, to differentiate once, and its metrics.

    An objective that looks at whole rows sees them whole: unless all tokens fit one chunk, the log-probs are then
    computed once more, beforehand (8 K V E FLOP).
    """
    inputs = (hidden_KE, head.weight_VE, head.bias_V)
    with torch.no_grad():
        spans = head.chunks(len(hidden_KE))
        gradients = _Gradients(head, hidden_KE)
        whole: _Slopes | None = None
        results = list[LossResult]()
        if objective.whole_rows and len(spans) > 1:
            result, whole = _differentiate(objective, tokens, *head_logprobs(head, hidden_KE, tokens.targets_K))
            results.append(result)
        for span in spans:
            logits_KV, targets_K = head.logits(hidden_KE[span]), tokens.targets_K[span]
            of_whole: torch.Tensor | None = None
            if objective.whole_vocabulary:
                result, of_whole = _differentiate_distributions(objective, tokens.part(span), logits_KV)
                results.append(result)
            logprobs_K, entropy_K = _softmax_(logits_KV, targets_K)
            if whole is None:
                result, slopes = _differentiate(objective, tokens.part(span), logprobs_K, entropy_K)
                results.append(result)
            else:
                slopes = whole.part(span)
            _to_gradient_(logits_KV, targets_K, entropy_K, slopes)
            if of_whole is not None:
                logits_KV += of_whole
            gradients.add(span, logits_KV)
            del logits_KV  # before there are those of the next chunk
    total = _sum(results)
    loss: torch.Tensor = _Differentiated.apply(total.loss, gradients.of_inputs(), *inputs)  # pyright: ignore[reportAssignmentType]  # untyped in torch
    return LossResult(loss, total.metrics)


def _differentiate(
    objective: Objective, tokens: TrainedTokens, logprobs_K: torch.Tensor, entropy_K: torch.Tensor
) -> tuple[LossResult, _Slopes]:
    with torch.enable_grad():
        leaves = logprobs_K.detach().requires_grad_(), entropy_K.detach().requires_grad_()
        result = objective(tokens, *leaves)
        slopes = _Slopes(*torch.autograd.grad(result.loss, leaves, allow_unused=True))
    return LossResult(result.loss.detach(), result.metrics), slopes


def _differentiate_distributions(
    objective: Objective, tokens: TrainedTokens, logits_KV: torch.Tensor
) -> tuple[LossResult, torch.Tensor]:
    """Terms of whole distributions and their gradient with respect to the logits: a few chunks of memory."""
    with torch.enable_grad():
        leaf = logits_KV.detach().requires_grad_()
        result = objective.of_distributions(tokens, leaf.log_softmax(-1))
        (gradient_KV,) = torch.autograd.grad(result.loss, leaf)
    return LossResult(result.loss.detach(), result.metrics), gradient_KV


def _sum(results: Sequence[LossResult]) -> LossResult:
    metrics: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    for result in results:
        for name, value in result.metrics.items():
            metrics[name].append(value)
    loss = torch.stack([result.loss for result in results]).sum()
    return LossResult(loss, {name: torch.stack(values).sum() for name, values in metrics.items()})


def _softmax_(logits_KV: torch.Tensor, targets_K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn logits into probabilities, in place; log-probs of the targets and entropies, shapes (K,)."""
    logprobs_K, entropy_K = logits_KV.new_empty(len(logits_KV)), logits_KV.new_empty(len(logits_KV))
    for rows in _blocks(logits_KV):
        block = logits_KV[rows]
        shifted = block - block.amax(-1, keepdim=True)
        normaliser = torch.exp(shifted, out=block).sum(-1)
        logprobs_K[rows] = shifted.gather(1, targets_K[rows, None]).squeeze(1) - normaliser.log()
        entropy_K[rows] = normaliser.log() - shifted.mul_(block).sum(-1) / normaliser
        block.div_(normaliser.unsqueeze(1))
    return logprobs_K, entropy_K


def _to_gradient_(probs_KV: torch.Tensor, targets_K: torch.Tensor, entropy_K: torch.Tensor, slopes: _Slopes) -> None:
    """Turn probabilities into the gradient with respect to the logits, in place.

    d log p_t / d z_v = [v = t] - p_v and d H / d z_v = -p_v (log p_v + H).
    """
    slopes_K1 = slopes.logprobs_K.unsqueeze(1)
    if slopes.entropy_K is None:
        probs_KV.mul_(-slopes_K1)
    else:
        for rows in _blocks(probs_KV):
            block, slope = probs_KV[rows], slopes.entropy_K[rows, None]
            information = torch.xlogy(block, block).mul_(slope)
            block.mul_(-slopes_K1[rows] - slope * entropy_K[rows, None]).sub_(information)
    probs_KV.scatter_add_(1, targets_K.unsqueeze(1), slopes_K1.to(probs_KV.dtype))


def _blocks(logits_KV: torch.Tensor) -> list[slice]:
    size = max(1, LOGITS_PER_BLOCK // logits_KV.shape[1])
    return [slice(start, start + size) for start in range(0, len(logits_KV), size)]


class _Gradients:
    """The gradients of hidden states, weight and bias, as far as somebody wants them; sums in at least fp32."""

    def __init__(self, head: Head, hidden_KE: torch.Tensor) -> None:
        self._head, self._hidden_KE = head, hidden_KE
        self._inputs = (hidden_KE, head.weight_VE, head.bias_V)
        self._sums = [
            torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32))
            if t is not None and t.requires_grad
            else None
            for t in self._inputs
        ]

    def add(self, span: slice, gradient_KV: torch.Tensor) -> None:
        """The part of the tokens in `span`."""
        hidden, weight, bias = self._sums
        scale = 1 / self._head.temperature
        if bias is not None:
            bias.add_(gradient_KV.sum(0), alpha=scale)
        gradient_KV = gradient_KV.to(self._head.dtype)
        if hidden is not None:
            _add_product(hidden[span], gradient_KV, self._head.weight_VE, scale)
        if weight is not None:
            _add_product(weight, gradient_KV.T, self._hidden_KE[span], scale)

    def of_inputs(self) -> list[torch.Tensor | None]:
        """In the dtypes of the inputs."""
        return [s if s is None or t is None else s.to(t.dtype) for s, t in zip(self._sums, self._inputs, strict=True)]


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    right = right.to(left.dtype)
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=scale)
    else:
        total.add_(left @ right, alpha=scale)


class _Differentiated(torch.autograd.Function):
    """A scalar whose gradients with respect to `inputs` are known. Hands them over: it can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, gradients: list[torch.Tensor | None], *_: torch.Tensor) -> torch.Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]  # torch types any number of slopes
        gradients = [None if gradient is None else gradient.mul_(slope) for gradient in ctx.gradients]
        del ctx.gradients  # as the only owner, autograd keeps them without a copy
        return (None, None, *gradients)
