"""The learner: training rows in, new weights out. Blind to algorithms, environments and engines.

Rows carry explicit weights, so gradients are accumulated over packed batches without changing the loss. Within one
optimizer step the weights are divided by their sum: each of the `minibatches` steps sees a loss of total weight 1.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agent_rl.errors import ConfigError
from agent_rl.learner.attention import check_packable, packed_attention
from agent_rl.learner.batch import deal, pack
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.frozen_policy import reference_of, teacher_of
from agent_rl.learner.layers import keep_fp32, wrap_layers
from agent_rl.learner.logprobs import HiddenTerm, Precision, trained_logprobs, trained_loss
from agent_rl.learner.lora import add_lora, full_weights
from agent_rl.learner.moving_reference import MovingReference
from agent_rl.learner.objective import Imitation, Likelihood, Objective, PolicyObjective, pulls
from agent_rl.learner.optimizer import Optimizer
from agent_rl.learner.parts import copy_into
from agent_rl.learner.policy import save_policy
from agent_rl.learner.preparation import Preparation, with_shares
from agent_rl.learner.tensors import PackedTensors, to_tensors
from agent_rl.learner.value_head import ValueHead, prefix_values
from agent_rl.learner.watch import Seen, Watch, gather
from agent_rl.seeding import stream
from agent_rl.store.state import read_state, write_state
from agent_rl.types import FloatArray, IntArray, TrainingRow

if TYPE_CHECKING:
    from agent_rl.learner.sharding import Sharding

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class _Part:
    """Packed batches and what is minimised on them."""

    batches: Sequence[PackedTensors]
    objective: Objective
    temperature: float
    beside: HiddenTerm | None = None
    watch: Watch | None = None


class Learner:
    """Owns the optimizer, and changes the weights of `model` in place. Between two calls `model` is an ordinary one.

    Weights in half precision would lose small updates: those that are trained are kept in fp32, and computed with in
    bf16. With `sharding` every rank makes a `Learner` and calls the same methods with the same rows; the model is then
    cut into parts, and only this class can use it (`agent_rl.learner.ranks` hides all that from a training loop).
    With `values` a value head on the policy's decoder learns in the same steps; `teacher` is that of distillation.
    `temperature` is that of the sampler: log-probs are taken of the distribution that was sampled from. The same rows
    and state give the same weights bit for bit on a CPU with a fixed number of threads.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: LearnerConfig,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        teacher: PreTrainedModel | None = None,
        values: CriticConfig | None = None,
        sharding: Sharding | None = None,
    ) -> None:
        self.model = model.eval()  # the sampler has no dropout, so neither has the learner
        if model.dtype in HALF:
            config = config.model_copy(update={"autocast": True})
        self.config = config
        self._sharding = sharding
        self._temperature = temperature
        self._seed = seed
        self._objective = PolicyObjective(config)
        self._imitation = Imitation(config.imitation) if config.imitation is not None else None
        if model.device.type != "meta":  # elsewhere than on rank 0 there may be nothing to check yet
            check_packable(model)
        if config.lora is not None:
            add_lora(model, config.lora, seed)
        keep_fp32(model)
        frozen = {
            pull.to: reference_of(model, config, temperature, exact=pull.exact)
            if pull.to == "reference"
            else teacher_of(model, teacher, config, temperature, exact=pull.exact)
            for pull in pulls(config)
        }
        self.value_head = None if values is None else ValueHead(model, values)
        wrap_layers(model, config.memory)
        if sharding is not None:
            for policy in {id(m): m for m in (model, *(policy.model for policy in frozen.values()))}.values():
                sharding.shard(policy, half=config.autocast)
            if self.value_head is not None:
                sharding.cut(self.value_head)
        self._trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if self.value_head is not None:
            self._trainable |= {f"value_head.{name}": p for name, p in self.value_head.named_parameters()}
        self._reference = (
            MovingReference(frozen["reference"].model, model, config.reference) if config.reference.follow else None
        )
        self._prepare = Preparation(model, config, frozen, temperature, self.value_head)
        self._optimizer = Optimizer(self._trainable, config)

    def step(
        self,
        rows: Sequence[TrainingRow],
        groups: Sequence[int] | None = None,
        *,
        version: int | None = None,
        imitated: Sequence[TrainingRow] = (),
        seen: Seen | None = None,
    ) -> dict[str, float]:
        """Take `minibatches * epochs` optimizer steps on `rows` and report on them.

        `groups` numbers the group of each row, so that no minibatch cuts one; by default each row is its own.
        `version` is the weight version that the step starts from, for log-probs that are interpolated by age. Each
        optimizer step imitates a part of the rows `imitated` (`LearnerConfig.imitation`), which may be all there is.
        `seen` is filled with what the loss saw of `rows` when it saw them first.
        `mismatch_*` compares the sampler's log-probs with ours before the first update: it measures how far engine and
        learner disagree, and how stale the rows are. `tokens` counts what one pass forwards, the other values are means
        over the optimizer steps. Raises `ValueError` when no token is trained, or `version` or `imitation` is missing.
        """
        self._check(rows, version, imitated)
        dealt = self._split(rows, range(len(rows)) if groups is None else groups)
        minibatches = [self._pack(part) if part or not imitated else [] for part in dealt]
        watches = [] if seen is None else [Watch(part) for part in dealt]
        beside = [self._pack(part) for part in self._split(imitated, range(len(imitated)))] if imitated else [[]]
        updates = self.config.epochs * len(minibatches if rows else beside)
        before = self.optimizer_steps
        with packed_attention(self.model):
            minibatches = [self._prepare(batches) for batches in minibatches]
            if self._imitation is not None and self._imitation.compares_with_old:
                beside = [[self._prepare.with_old(batch) for batch in batches] for batches in beside]
            reports = [
                self._optimize(
                    self._parts(
                        minibatches[i % len(minibatches)],
                        beside[i % len(beside)],
                        version,
                        i / updates,
                        watches[i] if i < len(watches) else None,
                    )
                )
                for i in range(updates)
            ]
        if self._reference is not None:
            self._reference.after(before, self.optimizer_steps)
        if seen is not None:
            found = gather(rows, watches, None if self._sharding is None else self._sharding.sum)
            seen.logprobs, seen.entropies = found.logprobs, found.entropies
        return self._report(reports, [batch for batches in minibatches for batch in batches])

    def supervised_step(self, rows: Sequence[TrainingRow]) -> dict[str, float]:
        """One optimizer step of maximum likelihood on the weighted tokens of `rows`."""
        batches = self._pack(rows)
        with packed_attention(self.model):
            report = self._optimize([_Part(batches, Likelihood(), temperature=1.0)])
        return self._report([report], batches)

    def values(self, rows: Sequence[IntArray]) -> list[FloatArray]:
        """What the value head says of every prefix of every row (see `prefix_values`). Raises `ValueError` without."""
        if self.value_head is None:
            raise ValueError("this learner has no value head: give it values")
        return prefix_values(self.model, self.value_head, rows, self.config.token_budget)

    def logprobs(self, rows: Sequence[TrainingRow]) -> list[FloatArray]:
        """What the policy as it is says of the weighted tokens of each row, `logprobs_T`; 0 elsewhere."""
        found = [np.zeros(len(row.token_ids_T), np.float32) for row in rows]
        with packed_attention(self.model):
            for batch in pack(rows, self.config.token_budget):
                tensors = to_tensors(batch, self.model.device)
                logprobs_K, _ = trained_logprobs(self.model, tensors, self._temperature, Precision.of(self.config))
                bounds = np.searchsorted(batch.documents_K, np.arange(1, len(batch.rows_D)))
                for row, part in zip(batch.rows_D, np.split(logprobs_K.float().cpu().numpy(), bounds), strict=True):
                    found[row][rows[row].weights_T != 0] = part
        return found

    def weights(self) -> dict[str, torch.Tensor]:
        """The policy's weights by the plain model's names (adapters merged), for an engine.

        Mostly views of live parameters: copy them before the next step. With sharding they are gathered one by one;
        rank 0 gets them on the CPU, which has room for all of them, and the others get nothing.
        """
        with torch.no_grad():
            weights = full_weights(self.model)
            return dict(weights) if self._sharding is None else self._sharding.gather(weights)

    @property
    def has_values(self) -> bool:
        """Whether a value head learns on the policy."""
        return self.value_head is not None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the original model. Live tensors: write them before the next step."""
        state = {
            "trainable": {name: parameter.detach() for name, parameter in self._trainable.items()},
            "optimizer": self._optimizer.state_dict(),
        }
        return state if self._reference is None else {**state, "reference": self._reference.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit. Raises `ConfigError` when it belongs to another model or LoRA set-up."""
        saved: Mapping[str, torch.Tensor] = state["trainable"]
        shapes = {name: parameter.shape for name, parameter in self._trainable.items()}
        if shapes != {name: tensor.shape for name, tensor in saved.items()}:
            raise ConfigError("The checkpoint belongs to another model or LoRA configuration.")
        if ("reference" in state) != (self._reference is not None):
            raise ConfigError(
                "The checkpoint's reference and this one do not both move: set learner.reference as it was."
            )
        for name, parameter in self._trainable.items():
            copy_into(parameter, saved[name])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._reference is not None:
            self._reference.load_state_dict(state["reference"])

    def save(self, folder: Path) -> None:
        """Write the state, each rank its part."""
        write_state(folder, self.state_dict())

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote, on however many ranks. Raises `ConfigError` as `load_state_dict` does."""
        self.load_state_dict(read_state(folder, self.state_dict()))

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

    def _check(self, rows: Sequence[TrainingRow], version: int | None, imitated: Sequence[TrainingRow]) -> None:
        if self.value_head is not None and any(row.returns_T is None for row in rows):
            raise ValueError("rows for a learner with a value head need returns_T")
        if version is None and self.config.old_logprobs == "interpolate":
            raise ValueError("to interpolate log-probs by age, a step has to know the weight version it starts from")
        if imitated and self._imitation is None:
            raise ValueError("nothing says how rows are imitated: set imitation in the learner's configuration")

    def _parts(
        self,
        batches: Sequence[PackedTensors],
        imitated: Sequence[PackedTensors],
        version: int | None,
        progress: float,
        watch: Watch | None,
    ) -> list[_Part]:
        """What one optimizer step is made of, after `progress` of all."""
        if version is not None and self.config.old_logprobs == "interpolate":
            batches = [with_shares(batch, version, progress) for batch in batches]
        values = None if self.value_head is None else self.value_head.beside_policy
        parts = [_Part(batches, self._objective, self._temperature, values, watch)]
        if imitated and self._imitation is not None:
            parts.append(_Part(imitated, self._imitation, self._temperature))
        return parts

    def _split(self, rows: Sequence[TrainingRow], groups: Sequence[int]) -> list[list[TrainingRow]]:
        """Deal the groups, in an order drawn for this step, into at most `minibatches` parts of equal size."""
        rng = stream(self._seed, "minibatches", self.optimizer_steps)
        return deal(rows, groups, self.config.minibatches, rng)

    def _pack(self, rows: Sequence[TrainingRow]) -> list[PackedTensors]:
        total_weight = float(sum(row.weights_T.sum(dtype=np.float64) for row in rows))
        if not total_weight:
            raise ValueError("nothing to train on: every token of the rows has weight 0")
        budget = self.config.token_budget
        if self._sharding is None:
            batches = pack(rows, budget)
        else:
            batches = self._sharding.share(functools.partial(pack, rows), budget)
        return [to_tensors(batch, self.model.device, total_weight) for batch in batches]

    def _optimize(self, parts: Sequence[_Part]) -> dict[str, float]:
        """One optimizer step on the sum of the parts' losses; skipped when the gradient is not finite."""
        sums: defaultdict[str, float] = defaultdict(float)
        self._optimizer.zero_grad()
        for part in parts:
            for batch in part.batches:
                prepared = self._prepare.with_distributions(batch) if part.objective.whole_vocabulary else batch
                watch = part.watch
                result = trained_loss(
                    self.model,
                    prepared,
                    part.objective if watch is None else watch.over(part.objective),
                    part.temperature,
                    Precision.of(self.config),
                    beside=part.beside,
                )
                result.loss.backward()
                if watch is not None:
                    watch.take(batch)
                sums["loss"] += result.loss.item()
                for name, value in result.metrics.items():
                    sums[name] += value.item()
        return {**self._total(sums), **self._optimizer.step()}

    def _total(self, values: Mapping[str, float]) -> Mapping[str, float]:
        """Summed over the ranks."""
        return values if self._sharding is None else self._sharding.total(values)

    def _report(self, steps: Sequence[Mapping[str, float]], batches: Sequence[PackedTensors]) -> dict[str, float]:
        """Means over the optimizer steps, the mismatch of the first one, and counts."""
        means = {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}
        mismatch = {name: value for name, value in steps[0].items() if name.startswith("mismatch_")}
        counted = {
            "tokens": sum(len(batch.token_ids_N) for batch in batches),
            "trained_tokens": sum(int(batch.trained.weights_K.count_nonzero()) for batch in batches),
        }
        counts = {
            **{name: int(count) for name, count in self._total(counted).items()},
            "optimizer_steps": self.optimizer_steps,
            "skipped_steps": self.skipped_steps,
        }
        return {**means, **mismatch, **counts}
