"""A critic: the value of every prefix of a row. A copy of the policy's decoder with a head of its own.

Knows values and targets; refuses to know where targets come from (`agent_rl.credit.gae`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from agent_rl.errors import ConfigError
from agent_rl.learner.attention import check_packable, packed_attention
from agent_rl.learner.batch import deal, pack
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.optimizer import Optimizer
from agent_rl.learner.tensors import PackedTensors, to_tensors
from agent_rl.learner.value_head import ValueHead, packed_outputs, packed_values, prefix_values
from agent_rl.seeding import stream
from agent_rl.types import FloatArray, IntArray, TrainingRow


class Critic:
    """Owns a model and its optimizer. `model` is changed in place: give it a copy of the policy."""

    def __init__(self, model: PreTrainedModel, config: CriticConfig, *, seed: int = 0) -> None:
        check_packable(model)
        self.model = model.eval()
        self.config = config
        self._seed = seed
        self.head = ValueHead(model, config)
        unused = {id(p) for p in head_only_parameters(model)}
        self._trainable = {name: p for name, p in model.named_parameters() if id(p) not in unused and p.requires_grad}
        self._trainable |= {f"value_head.{name}": p for name, p in self.head.named_parameters()}
        self._optimizer = Optimizer(self._trainable, config)

    def values(self, rows: Sequence[IntArray]) -> list[FloatArray]:
        """V of every prefix of every row of tokens: `values_T1[t]` is that of the first `t` tokens, and of none 0."""
        return prefix_values(self.model, self.head, rows, self.config.token_budget)

    def step(self, rows: Sequence[TrainingRow], groups: Sequence[int]) -> dict[str, float]:
        """Take `minibatches * epochs` optimizer steps towards the targets, which stand in the rows' `advantages_T`.

        `groups` numbers the group of each row, as for the learner. `explained_variance` is 1 - Var(G - V) / Var(G)
        before the first step, by the rows' weights.
        """
        config, reports = self.config, list[dict[str, float]]()
        with packed_attention(self.model):
            parts = deal(rows, groups, config.minibatches, stream(self._seed, "critic", self._optimizer.steps))
            minibatches = [self._pack(part) for part in parts]
            old = [[packed_values(self.model, self.head, batch) for batch in batches] for batches in minibatches]
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

    def _optimize(self, batches: Sequence[PackedTensors], old_values: Sequence[torch.Tensor]) -> dict[str, float]:
        total = 0.0
        self._optimizer.zero_grad()
        for batch, old_K in zip(batches, old_values, strict=True):
            outputs_KB = packed_outputs(self.model, self.head, batch)
            losses_K = self.head.losses(outputs_KB, batch.trained.advantages_K, old_K)
            loss = (batch.trained.weights_K * losses_K).sum()
            loss.backward()
            total += loss.item()
        return {"loss": total, **self._optimizer.step()}


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
