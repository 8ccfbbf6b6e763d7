"""Values of prefixes: a linear head on a decoder's hidden states, a critic's own or the policy's.

Knows hidden states and targets; refuses to know where targets come from (`agent_rl.credit.gae`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from agent_rl.learner.attention import packed_attention, packed_hidden
from agent_rl.learner.batch import pack
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.loss_result import LossResult
from agent_rl.learner.tensors import PackedTensors, TrainedTokens, to_tensors
from agent_rl.learner.value_losses import HLGauss, clipped_squared_error, squared_error
from agent_rl.types import FloatArray, IntArray, TrainingRow


class ValueHead(torch.nn.Linear):
    """A value for each hidden state of `model`; starts at 0, so that all values are 0 (hl_gauss: mid-range)."""

    def __init__(self, model: PreTrainedModel, config: CriticConfig) -> None:
        width: int = model.config.get_text_config().hidden_size
        outputs = config.bins if config.loss == "hl_gauss" else 1
        super().__init__(width, outputs, device=model.device, dtype=model.dtype)
        torch.nn.init.zeros_(self.weight)
        torch.nn.init.zeros_(self.bias)
        self.config = config
        self._classes = HLGauss(config.low, config.high, config.bins, config.spread)

    def outputs(self, hidden_KE: torch.Tensor) -> torch.Tensor:
        """What the losses are taken of, in at least fp32: shape (K, 1), of hl_gauss (K, bins)."""
        outputs_KB: torch.Tensor = self(hidden_KE.to(self.weight.dtype))
        return outputs_KB if outputs_KB.dtype == torch.float64 else outputs_KB.float()

    def value(self, outputs_KB: torch.Tensor) -> torch.Tensor:
        """The values, shape (K,)."""
        return self._classes.value(outputs_KB) if self.config.loss == "hl_gauss" else outputs_KB.squeeze(-1)

    def losses(self, outputs_KB: torch.Tensor, targets_K: torch.Tensor, old_K: torch.Tensor) -> torch.Tensor:
        """The configured loss of each value, shape (K,); `old_K` are the values before the update."""
        if self.config.loss == "hl_gauss":
            return self._classes.loss(outputs_KB, targets_K)
        if self.config.loss == "clipped":
            return clipped_squared_error(outputs_KB.squeeze(-1), targets_K, old_K, self.config.clip)
        return squared_error(outputs_KB.squeeze(-1), targets_K)

    def beside_policy(self, hidden_KE: torch.Tensor, tokens: TrainedTokens) -> LossResult:
        """The term of a policy's own value head: the weighted losses towards `returns_K`, times the coefficient."""
        outputs_KB = self.outputs(hidden_KE.detach() if self.config.stop_gradient else hidden_KE)
        loss = (tokens.weights_K * self.losses(outputs_KB, tokens.returns_K, tokens.old_values_K)).sum()
        return LossResult(self.config.coefficient * loss, {"value_loss": loss.detach()})


def prefix_values(
    model: PreTrainedModel, head: ValueHead, rows: Sequence[IntArray], token_budget: int
) -> list[FloatArray]:
    """V of every prefix of every row of tokens: `values_T1[t]` is that of the first `t` tokens, and of none 0."""
    extended = [_every_position(token_ids_T) for token_ids_T in rows]
    found = [np.zeros(len(token_ids_T) + 1, np.float32) for token_ids_T in rows]
    with packed_attention(model):
        for batch in pack(extended, token_budget, bound_trained=False):
            values_K = packed_values(model, head, to_tensors(batch, model.device)).float().cpu().numpy()
            bounds = np.searchsorted(batch.documents_K, np.arange(1, len(batch.rows_D)))
            for row, values_T in zip(batch.rows_D, np.split(values_K, bounds), strict=True):
                found[row][1:] = values_T
    return found


def packed_outputs(model: PreTrainedModel, head: ValueHead, batch: PackedTensors) -> torch.Tensor:
    """What the head says before each of the K trained tokens, for its losses."""
    outputs_NB = head.outputs(packed_hidden(model, batch.token_ids_N, batch.position_ids_N, batch.layout))
    return outputs_NB.index_select(0, batch.sources_K)  # rows share positions: narrow before it gets long


@torch.no_grad()
def packed_values(model: PreTrainedModel, head: ValueHead, batch: PackedTensors) -> torch.Tensor:
    """V before each of the K trained tokens. Without gradient."""
    return head.value(packed_outputs(model, head, batch))


def _every_position(token_ids_T: IntArray) -> TrainingRow:
    """A row that asks for the prediction at every token; the one after the last stands for what would come next."""
    ids = np.append(token_ids_T, token_ids_T[-1:])
    zeros, weights = np.zeros(len(ids), np.float32), np.ones(len(ids), np.float32)
    weights[:1] = 0.0
    return TrainingRow(ids, zeros.astype(np.bool_), zeros, zeros, weights, zeros.astype(np.int32))
