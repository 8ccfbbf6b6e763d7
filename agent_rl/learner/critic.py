"""A critic: the value of every prefix of a row. A copy of the policy's decoder with a head of its own.

Knows values and targets; refuses to know where targets come from (`agent_rl.credit.gae`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from transformers import PreTrainedModel

from agent_rl.errors import ConfigError
from agent_rl.learner.attention import check_packable, packed_attention, packed_hidden
from agent_rl.learner.batch import deal, pack
from agent_rl.learner.config import OptimizerConfig
from agent_rl.learner.optimizer import Optimizer
from agent_rl.learner.tensors import PackedTensors, to_tensors
from agent_rl.learner.value_losses import HLGauss, clipped_squared_error, squared_error
from agent_rl.seeding import stream
from agent_rl.types import FloatArray, IntArray, TrainingRow


class ValueConfig(OptimizerConfig):
    """What critics of every kind have in common."""

    learning_rate: float = Field(default=1e-5, gt=0, description="Peak learning rate of AdamW.")
    low: float = Field(default=0.0, description="Least return that hl_gauss can express.")
    high: float = Field(default=1.0, description="Greatest return that hl_gauss can express.")
    bins: int = Field(default=51, ge=2, description="Classes of hl_gauss.")
    spread: float = Field(default=0.75, gt=0, description="Deviation of hl_gauss's targets, in bins.")
    alone_steps: int = Field(
        default=0, ge=0, description="First training steps in which only the critic learns (value pretraining)."
    )
    token_budget: int = Field(default=8192, ge=1, description="Tokens forwarded at once; bounds memory.")

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} has to be below high {self.high}.")
        return self


class CriticConfig(ValueConfig):
    """How values of tokens are learned."""

    loss: Literal["squared", "clipped", "hl_gauss"] = Field(
        default="squared", description="Squared error, PPO's clipped one, or classification (HL-Gauss)."
    )
    clip: float = Field(default=0.2, gt=0, description="How far from its old value the clipped loss lets a value go.")
    gamma: float = Field(default=1.0, ge=0, le=1, description="Discount of the critic's targets, per token.")
    lam: float = Field(default=1.0, ge=0, le=1, description="Lambda of the critic's targets; 1: returns.")
    minibatches: int = Field(default=1, ge=1, description="Optimizer steps per pass over a batch.")
    epochs: int = Field(default=1, ge=1, description="Passes over a batch.")


class Critic:
    """Owns a model and its optimizer. `model` is changed in place: give it a copy of the policy.

    The head starts at 0, so that all first values are 0 (or, of hl_gauss, the middle of its range).
    """

    def __init__(self, model: PreTrainedModel, config: CriticConfig, *, seed: int = 0) -> None:
        check_packable(model)
        self.model = model.eval()
        self.config = config
        self._seed = seed
        self._classes = HLGauss(config.low, config.high, config.bins, config.spread)
        width: int = model.config.get_text_config().hidden_size
        outputs = config.bins if config.loss == "hl_gauss" else 1
        self.head = torch.nn.Linear(width, outputs, device=model.device, dtype=model.dtype)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        unused = {id(p) for p in head_only_parameters(model)}
        self._trainable = {name: p for name, p in model.named_parameters() if id(p) not in unused and p.requires_grad}
        self._trainable |= {f"value_head.{name}": p for name, p in self.head.named_parameters()}
        self._optimizer = Optimizer(self._trainable, config)

    def values(self, rows: Sequence[IntArray]) -> list[FloatArray]:
        """V of every prefix of every row of tokens: `values_T1[t]` is that of the first `t` tokens, and of none 0."""
        extended = [_every_position(token_ids_T) for token_ids_T in rows]
        found = [np.zeros(len(token_ids_T) + 1, np.float32) for token_ids_T in rows]
        with torch.no_grad(), packed_attention(self.model):
            for batch in pack(extended, self.config.token_budget):
                values_K = self._value(self._outputs(to_tensors(batch, self.model.device))).float().cpu().numpy()
                ends = np.cumsum(batch.lengths_D)
                for row, end, length in zip(batch.rows_D, ends, batch.lengths_D, strict=True):
                    found[row][1 : length + 1] = values_K[end - length : end]
        return found

    def step(self, rows: Sequence[TrainingRow], groups: Sequence[int]) -> dict[str, float]:
        """Take `minibatches * epochs` optimizer steps towards the targets, which stand in the rows' `advantages_T`.

        `groups` numbers the group of each row, as for the learner. `explained_variance` is 1 - Var(G - V) / Var(G)
        before the first step, by the rows' weights.
        """
        config, reports = self.config, list[dict[str, float]]()
        with packed_attention(self.model):
            parts = deal(rows, groups, config.minibatches, stream(self._seed, "critic", self._optimizer.steps))
            minibatches = [self._pack(part) for part in parts]
            old = [[self._old_values(batch) for batch in batches] for batches in minibatches]
            explained = _explained([b for batches in minibatches for b in batches], [v for vs in old for v in vs])
            for _ in range(config.epochs):
                reports += [self._optimize(*both) for both in zip(minibatches, old, strict=True)]
        means = {name: float(np.mean([report[name] for report in reports])) for name in reports[0]}
        return {**means, "explained_variance": explained}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the original model. Live tensors: write them before the next step."""
        trainable = {name: parameter.detach() for name, parameter in self._trainable.items()}
        return {"trainable": trainable, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit. Raises `ConfigError` when it belongs to another critic."""
        saved: Mapping[str, torch.Tensor] = state["trainable"]
        shapes = {name: parameter.shape for name, parameter in self._trainable.items()}
        if shapes != {name: tensor.shape for name, tensor in saved.items()}:
            raise ConfigError("The checkpoint belongs to another critic.")
        with torch.no_grad():
            for name, parameter in self._trainable.items():
                parameter.copy_(saved[name])
        self._optimizer.load_state_dict(state["optimizer"])

    def _pack(self, rows: Sequence[TrainingRow]) -> list[PackedTensors]:
        total_weight = float(sum(row.weights_T.sum(dtype=np.float64) for row in rows))
        return [to_tensors(b, self.model.device, total_weight) for b in pack(rows, self.config.token_budget)]

    def _outputs(self, batch: PackedTensors) -> torch.Tensor:
        hidden_NE = packed_hidden(self.model, batch.token_ids_N, batch.position_ids_N, batch.buckets)
        outputs_KB = self.head(hidden_NE.index_select(0, batch.sources_K))
        return outputs_KB if outputs_KB.dtype == torch.float64 else outputs_KB.float()

    def _value(self, outputs_KB: torch.Tensor) -> torch.Tensor:
        return self._classes.value(outputs_KB) if self.config.loss == "hl_gauss" else outputs_KB.squeeze(-1)

    def _old_values(self, batch: PackedTensors) -> torch.Tensor:
        with torch.no_grad():
            return self._value(self._outputs(batch))

    def _optimize(self, batches: Sequence[PackedTensors], old_values: Sequence[torch.Tensor]) -> dict[str, float]:
        total = 0.0
        self._optimizer.zero_grad()
        for batch, old_K in zip(batches, old_values, strict=True):
            loss = (
                batch.trained.weights_K * self._losses(self._outputs(batch), batch.trained.advantages_K, old_K)
            ).sum()
            loss.backward()
            total += loss.item()
        return {"loss": total, **self._optimizer.step()}

    def _losses(self, outputs_KB: torch.Tensor, targets_K: torch.Tensor, old_K: torch.Tensor) -> torch.Tensor:
        if self.config.loss == "hl_gauss":
            return self._classes.loss(outputs_KB, targets_K)
        if self.config.loss == "clipped":
            return clipped_squared_error(outputs_KB.squeeze(-1), targets_K, old_K, self.config.clip)
        return squared_error(outputs_KB.squeeze(-1), targets_K)


def _every_position(token_ids_T: IntArray) -> TrainingRow:
    """A row that asks for the prediction at every token; the one after the last stands for what would come next."""
    ids = np.append(token_ids_T, token_ids_T[-1:])
    zeros, weights = np.zeros(len(ids), np.float32), np.ones(len(ids), np.float32)
    weights[:1] = 0.0
    return TrainingRow(ids, zeros.astype(np.bool_), zeros, zeros, weights, zeros.astype(np.int32))


def head_only_parameters(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The parameters of a language-model head that the decoder does not share (tied embeddings are shared)."""
    head = model.get_output_embeddings()
    embeddings = {id(p) for p in model.get_input_embeddings().parameters()}
    return [] if head is None else [p for p in head.parameters() if id(p) not in embeddings]


def _explained(batches: Sequence[PackedTensors], values: Sequence[torch.Tensor]) -> float:
    weights = torch.cat([batch.trained.weights_K for batch in batches]).double()
    targets = torch.cat([batch.trained.advantages_K for batch in batches]).double()
    variance = _variance(targets, weights)
    return (1 - _variance(targets - torch.cat(list(values)).double(), weights) / variance) if variance > 0 else 0.0


def _variance(values: torch.Tensor, weights: torch.Tensor) -> float:
    mean = (weights * values).sum() / weights.sum()
    return float((weights * (values - mean).square()).sum() / weights.sum())
