"""The learner: training rows in, new weights out. Blind to algorithms, environments and engines.

Rows carry explicit weights, so gradients are accumulated over packed batches without changing the loss. Within one
optimizer step the weights are divided by their sum: each of the `minibatches` steps sees a loss of total weight 1.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agent_rl.errors import ConfigError
from agent_rl.learner.attention import check_packable, packed_attention
from agent_rl.learner.batch import deal, pack
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.logprobs import trained_logprobs
from agent_rl.learner.lora import add_lora, full_weights, without_lora
from agent_rl.learner.objective import Objective, PolicyObjective, likelihood
from agent_rl.learner.optimizer import Optimizer
from agent_rl.learner.policy import save_policy
from agent_rl.learner.tensors import PackedTensors, to_tensors
from agent_rl.seeding import stream
from agent_rl.types import FloatArray, TrainingRow


class Learner:
    """Owns the optimizer, and changes the weights of `model` in place. Between two calls `model` is an ordinary one.

    `temperature` is that of the sampler: log-probs are taken of the distribution that was sampled from. The same rows
    and state give the same weights bit for bit on a CPU with a fixed number of threads.
    """

    def __init__(
        self, model: PreTrainedModel, config: LearnerConfig, *, temperature: float = 1.0, seed: int = 0
    ) -> None:
        self.model = model.eval()  # the sampler has no dropout, so neither has the learner
        self.config = config
        self._temperature = temperature
        self._seed = seed
        self._objective = PolicyObjective(config)
        check_packable(model)
        if config.lora is not None:
            add_lora(model, config.lora, seed)
        self._reference = self._make_reference() if config.kl_coefficient else None
        self._trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._optimizer = Optimizer(self._trainable, config)

    def step(self, rows: Sequence[TrainingRow], groups: Sequence[int] | None = None) -> dict[str, float]:
        """Take `minibatches * epochs` optimizer steps on `rows` and report on them.

        `groups` numbers the group of each row, so that no minibatch cuts one; by default each row is its own.
        `mismatch_*` compares the sampler's log-probs with ours before the first update: it measures how far engine and
        learner disagree, and how stale the rows are. `tokens` counts what one pass forwards, the other values are means
        over the optimizer steps. Raises `ValueError` when no token is trained.
        """
        parts = self._split(rows, range(len(rows)) if groups is None else groups)
        minibatches = [self._pack(part) for part in parts]
        with packed_attention(self.model):
            if self.config.old_logprobs == "recompute":
                minibatches = [[self._with_old_logprobs(batch) for batch in batches] for batches in minibatches]
            if self._reference is not None:
                minibatches = [[self._with_reference(batch, self._reference) for batch in m] for m in minibatches]
            reports = [
                self._optimize(batches, self._objective, self._temperature)
                for _ in range(self.config.epochs)
                for batches in minibatches
            ]
        return self._report(reports, [batch for batches in minibatches for batch in batches])

    def supervised_step(self, rows: Sequence[TrainingRow]) -> dict[str, float]:
        """One optimizer step of maximum likelihood on the weighted tokens of `rows`."""
        batches = self._pack(rows)
        with packed_attention(self.model):
            report = self._optimize(batches, likelihood, temperature=1.0)
        return self._report([report], batches)

    def logprobs(self, rows: Sequence[TrainingRow]) -> list[FloatArray]:
        """What the policy as it is says of the weighted tokens of each row, `logprobs_T`; 0 elsewhere."""
        found = [np.zeros(len(row.token_ids_T), np.float32) for row in rows]
        with torch.no_grad(), packed_attention(self.model):
            for batch in pack(rows, self.config.token_budget):
                logprobs_K, _ = self._logprobs(to_tensors(batch, self.model.device), self._temperature)
                counts = [int(np.count_nonzero(rows[row].weights_T)) for row in batch.rows_D]
                parts = np.split(logprobs_K.float().cpu().numpy(), np.cumsum(counts)[:-1])
                for row, part in zip(batch.rows_D.tolist(), parts, strict=True):
                    found[row][rows[row].weights_T != 0] = part
        return found

    def weights(self) -> dict[str, torch.Tensor]:
        """The policy's weights by the plain model's names (adapters merged), for an engine.

        Mostly views of live parameters: copy them before the next step.
        """
        with torch.no_grad():
            return dict(full_weights(self.model))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the original model. Live tensors: write them before the next step."""
        return {
            "trainable": {name: parameter.detach() for name, parameter in self._trainable.items()},
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit. Raises `ConfigError` when it belongs to another model or LoRA set-up."""
        saved: Mapping[str, torch.Tensor] = state["trainable"]
        shapes = {name: parameter.shape for name, parameter in self._trainable.items()}
        if shapes != {name: tensor.shape for name, tensor in saved.items()}:
            raise ConfigError("The checkpoint belongs to another model or LoRA configuration.")
        with torch.no_grad():
            for name, parameter in self._trainable.items():
                parameter.copy_(saved[name])
        self._optimizer.load_state_dict(state["optimizer"])

    def cool_down(self, optimizer_steps: int) -> None:
        """From here on the learning rate falls linearly to 0, in so many steps."""
        self._optimizer.cool_down(optimizer_steps)

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps taken."""
        return self._optimizer.steps

    @property
    def skipped_steps(self) -> int:
        """Steps that were left out, since the gradient was not finite."""
        return self._optimizer.skipped

    def save_pretrained(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the policy (adapters merged) and its tokenizer as a plain transformers checkpoint."""
        save_policy(self.model, tokenizer, folder, self.weights())

    def _split(self, rows: Sequence[TrainingRow], groups: Sequence[int]) -> list[list[TrainingRow]]:
        """Deal the groups, in an order drawn for this step, into at most `minibatches` parts of equal size."""
        rng = stream(self._seed, "minibatches", self.optimizer_steps)
        return deal(rows, groups, self.config.minibatches, rng)

    def _pack(self, rows: Sequence[TrainingRow]) -> list[PackedTensors]:
        total_weight = float(sum(row.weights_T.sum(dtype=np.float64) for row in rows))
        if not total_weight:
            raise ValueError("nothing to train on: every token of the rows has weight 0")
        return [to_tensors(batch, self.model.device, total_weight) for batch in pack(rows, self.config.token_budget)]

    def _with_old_logprobs(self, batch: PackedTensors) -> PackedTensors:
        with torch.no_grad():
            old_K, _ = self._logprobs(batch, self._temperature)
        return replace(batch, trained=replace(batch.trained, old_logprobs_K=old_K))

    def _make_reference(self) -> PreTrainedModel:
        """The policy as it is now: the model itself where adapters can be switched off, else a copy."""
        return self.model if self.config.lora is not None else copy.deepcopy(self.model).requires_grad_(False)

    def _with_reference(self, batch: PackedTensors, reference: PreTrainedModel) -> PackedTensors:
        unadapted = without_lora(self.model) if reference is self.model else packed_attention(reference)
        with torch.no_grad(), unadapted:
            reference_K, _ = self._logprobs(batch, self._temperature, reference)
        return replace(batch, trained=replace(batch.trained, reference_logprobs_K=reference_K))

    def _logprobs(
        self, batch: PackedTensors, temperature: float, model: PreTrainedModel | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.config.autocast):
            bonus = bool(self.config.entropy_coefficient)
            return trained_logprobs(model or self.model, batch, temperature, entropy_gradient=bonus)

    def _optimize(self, batches: Sequence[PackedTensors], objective: Objective, temperature: float) -> dict[str, float]:
        """One optimizer step on the sum of the batches' losses; skipped when the gradient is not finite."""
        sums: defaultdict[str, float] = defaultdict(float)
        self._optimizer.zero_grad()
        for batch in batches:
            logprobs, entropy = self._logprobs(batch, temperature)
            result = objective(batch.trained, logprobs, entropy)
            result.loss.backward()
            sums["loss"] += result.loss.item()
            sums["entropy"] += (batch.trained.weights_K * entropy).sum().item()
            for name, value in result.metrics.items():
                sums[name] += value.item()
        return {**sums, **self._optimizer.step()}

    def _report(self, steps: Sequence[Mapping[str, float]], batches: Sequence[PackedTensors]) -> dict[str, float]:
        """Means over the optimizer steps, the mismatch of the first one, and counts."""
        means = {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}
        mismatch = {name: value for name, value in steps[0].items() if name.startswith("mismatch_")}
        counts = {
            "tokens": sum(len(batch.token_ids_N) for batch in batches),
            "trained_tokens": sum(len(batch.trained.targets_K) for batch in batches),
            "optimizer_steps": self.optimizer_steps,
            "skipped_steps": self.skipped_steps,
        }
        return {**means, **mismatch, **counts}
