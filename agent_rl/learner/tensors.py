"""A packed batch on the model's device: where its tokens stand, and what the loss knows of those that are trained."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import torch

from agent_rl.learner.attention import Layout, make_layout
from agent_rl.learner.batch import PackedBatch
from agent_rl.types import IntArray

if TYPE_CHECKING:
    from agent_rl.learner.head import Head


@dataclass(frozen=True, slots=True, eq=False)
class FrozenTokens:
    """What a frozen policy, a reference or a teacher, says of K trained tokens: of itself, or of the vocabulary too."""

    logprobs_K: torch.Tensor
    hidden_KE: torch.Tensor | None = None
    head: Head | None = None

    def __getitem__(self, span: slice) -> Self:
        return replace(
            self,
            logprobs_K=self.logprobs_K[span],
            hidden_KE=None if self.hidden_KE is None else self.hidden_KE[span],
        )

    def distributions(self) -> torch.Tensor:
        """Log-probs of the whole vocabulary, shape (K, V): computed anew, for a chunk at a time."""
        if self.head is None or self.hidden_KE is None:
            raise ValueError("only log-probs of the trained tokens were asked for")
        return self.head.logits(self.hidden_KE).log_softmax(-1)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedTokens:
    """What the loss knows of the K trained tokens of a batch; all of shape (K,), without gradient.

    `old_logprobs_K` are the sampler's until somebody recomputes them; until then `corrections_K`, which multiply the
    weights of the policy loss, are 1. `documents_K` and `turns_K` number the row and the turn of each token.
    `returns_K` and `old_values_K` are for a value head. `proximal_shares_K` asks for interpolated old log-probs (see
    `proximal`), `proxy_logprobs_K` are Lp-Reg's (-inf: left alone).
    """

    targets_K: torch.Tensor
    weights_K: torch.Tensor
    advantages_K: torch.Tensor
    rollout_logprobs_K: torch.Tensor
    old_logprobs_K: torch.Tensor
    corrections_K: torch.Tensor
    documents_K: torch.Tensor
    turns_K: torch.Tensor
    weight_versions_K: torch.Tensor
    returns_K: torch.Tensor
    old_values_K: torch.Tensor
    proximal_shares_K: torch.Tensor | None = None
    proxy_logprobs_K: torch.Tensor | None = None
    reference: FrozenTokens | None = None
    teacher: FrozenTokens | None = None

    def part(self, span: slice) -> Self:
        """The tokens in `span`; rows may be cut."""
        values: dict[str, torch.Tensor | FrozenTokens | None] = {
            field.name: getattr(self, field.name) for field in fields(self)
        }
        return replace(self, **{name: value[span] for name, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True, eq=False)
class PackedTensors:
    """A `PackedBatch` on the model's device. `sources_K` are the flat positions that predict the trained tokens.

    `rows_D` stays on the CPU: which of the rows that were packed each document is.
    """

    token_ids_N: torch.Tensor
    position_ids_N: torch.Tensor
    layout: Layout
    sources_K: torch.Tensor
    trained: TrainedTokens
    rows_D: IntArray


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
        layout=make_layout(batch.lengths_B, batch.stems_B, device),
        sources_K=long(batch.sources_K),
        trained=TrainedTokens(
            targets_K=long(batch.targets_K),
            weights_K=real(batch.weights_K) / total_weight,
            advantages_K=real(batch.advantages_K),
            rollout_logprobs_K=rollout_logprobs_K,
            old_logprobs_K=rollout_logprobs_K,
            corrections_K=torch.ones_like(rollout_logprobs_K),
            documents_K=long(batch.documents_K),
            turns_K=long(batch.turns_K),
            weight_versions_K=real(batch.weight_versions_K),
            returns_K=real(batch.returns_K),
            old_values_K=torch.zeros_like(rollout_logprobs_K),
        ),
        rows_D=batch.rows_D,
    )
