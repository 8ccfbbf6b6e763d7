"""An utterance-level critic: V of the context of a turn and Q of the context with the turn, each of them twice.

A decoder with four heads; a target network follows it by Polyak averaging. Causal attention reads all turns of a row in
one forward pass. ArCHer (arXiv:2402.19446), sections 3 and 4. Knows episodes; refuses to know where they come from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from transformers import PreTrainedModel

from agent_rl.errors import ConfigError
from agent_rl.learner.attention import check_packable, packed_attention, packed_hidden
from agent_rl.learner.batch import PackedBatch, pack
from agent_rl.learner.bellman import (
    Double,
    Float64s,
    SiteTargets,
    Utterances,
    bellman_targets,
    find_utterances,
    lower_of,
    pessimism,
    returns_of,
    td_errors,
)
from agent_rl.learner.critic import head_only_parameters
from agent_rl.learner.critic_config import ValueConfig
from agent_rl.learner.optimizer import Optimizer
from agent_rl.learner.tensors import PackedTensors, to_tensors
from agent_rl.learner.value_losses import HLGauss, squared_error
from agent_rl.seeding import derive_seed
from agent_rl.types import FloatArray, IntArray, TrainingRow, Trajectory


class UtteranceCriticConfig(ValueConfig):
    """How an utterance-level critic learns, beside the actor and from more than the actor's batch."""

    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate of AdamW.")
    checkpoint: str | None = Field(
        default=None,
        description="Hub id or folder of a model with the same tokenizer to start from; none: the policy.",
    )
    loss: Literal["squared", "hl_gauss"] = Field(
        default="squared", description="Squared error, or classification (HL-Gauss)."
    )
    gamma: float = Field(default=0.95, ge=0, le=1, description="Discount per turn.")
    advantage: Literal["q", "td"] = Field(
        default="q", description="Q(o, a) - V(o), or the TD error r + gamma V(o') - V(o) of the o' that followed."
    )
    tau: float = Field(default=0.1, gt=0, le=1, description="How far the target network follows in one update.")
    double: Double = Field(
        default="min", description="What two critics are taught: the min of both targets, a soft_min, or each its own."
    )
    soft_min_temperature: float = Field(
        default=0.1, gt=0, description="Of soft_min, in units of reward: towards 0 it is the min, far above the mean."
    )
    actions: Literal["stored", "importance"] = Field(
        default="importance",
        description="V averages Q over the stored actions as they are, or weighted towards the present policy.",
    )
    max_importance: float = Field(
        default=2.0,
        ge=1,
        description="Largest weight of a stored action: p / p_sampler of a whole turn is cut here.",
    )
    updates: int = Field(default=4, ge=1, description="Optimizer steps per training step, each on a draw of its own.")
    groups_per_update: int = Field(default=16, ge=1, description="Groups in one draw from the replay.")
    capacity: int = Field(default=256, ge=1, description="Latest groups that the replay draws from.")
    token_baseline: bool = Field(
        default=False, description="Subtract what a token critic (critic.*) expects of the advantage inside a turn."
    )


class TurnEstimates(NamedTuple):
    """Q and V of every utterance of some episodes, and its advantage."""

    q_U: Float64s
    v_U: Float64s
    advantages_U: Float64s


class UtteranceCritic:
    """Owns a network, its target and an optimizer. `model` is changed in place: give it a copy of its own.

    All heads start at 0 (or, of hl_gauss, the middle of the range); their hidden layers differ by `seed`.
    """

    def __init__(self, model: PreTrainedModel, config: UtteranceCriticConfig, *, seed: int = 0) -> None:
        check_packable(model)
        self.config = config
        self._classes = HLGauss(config.low, config.high, config.bins, config.spread)
        self._network = _Network(model.eval(), config.bins if config.loss == "hl_gauss" else 1, seed)
        self._target = copy.deepcopy(self._network).requires_grad_(False)
        unused = {id(p) for p in head_only_parameters(model)}
        named = self._network.named_parameters()
        self._trainable = {name: p for name, p in named if id(p) not in unused and p.requires_grad}
        self._followers = {name: p for name, p in self._target.named_parameters() if name in self._trainable}
        self._optimizer = Optimizer(self._trainable, config)

    def estimate(self, episodes: Sequence[Trajectory]) -> TurnEstimates:
        """What the critic says of the utterances of `episodes`, the lower of both critics each time."""
        utterances = find_utterances(episodes)
        q_S2, v_S2 = self._read(self._network, utterances)
        lower = lower_of(self.config.double, self.config.soft_min_temperature)
        v_S = lower(v_S2.astype(np.float64))
        q_U, v_U = lower(q_S2[utterances.after_U].astype(np.float64)), v_S[utterances.before_U]
        if self.config.advantage == "q":
            return TurnEstimates(q_U, v_U, q_U - v_U)
        return TurnEstimates(q_U, v_U, td_errors(utterances, v_S, self.config.gamma))

    def update(self, episodes: Sequence[Trajectory], weights_U: Float64s | None = None) -> dict[str, float]:
        """One optimizer step on the utterances of `episodes`, then one of the target network.

        `weights_U` say how much each stored action counts for V. `target_lag` is the mean distance between the values
        of network and target.
        """
        utterances, config = find_utterances(episodes), self.config
        if weights_U is None:
            weights_U = np.ones(len(utterances.next_U))
        combine = pessimism(config.double, config.soft_min_temperature)
        q_S2, v_S2 = self._read(self._target, utterances)
        targets = bellman_targets(utterances, q_S2, v_S2, weights_U, config.gamma, combine)
        self._optimizer.zero_grad()
        losses, lag = np.zeros(2), 0.0
        with packed_attention(self._network.model):
            for packed, sites_K in _packed(utterances, config.token_budget):
                outputs_KHB = self._network(to_tensors(packed, self._device))
                of_heads = self._losses(outputs_KHB, sites_K, targets)
                of_heads.sum().backward()
                losses += of_heads.detach().double().cpu().numpy()
                read_v_K2 = self._values(outputs_KHB.detach())[:, 2:].cpu().numpy()
                lag += float((np.abs(read_v_K2 - v_S2[sites_K]).mean(1) * (targets.v_weights_S[sites_K] > 0)).sum())
        report = self._optimizer.step()
        self._follow()
        asked = max(1, int((targets.v_weights_S > 0).sum()))
        return {"q_loss": losses[0], "v_loss": losses[1], "target_lag": lag / asked, **report}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the original model. Live tensors: write them before the next step."""
        return {
            "trainable": {name: parameter.detach() for name, parameter in self._trainable.items()},
            "target": {name: parameter.detach() for name, parameter in self._followers.items()},
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit. Raises `ConfigError` when it belongs to another critic."""
        for part, parameters in (("trainable", self._trainable), ("target", self._followers)):
            saved: Mapping[str, torch.Tensor] = state.get(part, {})
            if {name: p.shape for name, p in parameters.items()} != {name: t.shape for name, t in saved.items()}:
                raise ConfigError("The checkpoint belongs to another critic.")
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(saved[name])
        self._optimizer.load_state_dict(state["optimizer"])

    @property
    def _device(self) -> torch.device:
        return self._network.model.device

    def _read(self, network: _Network, utterances: Utterances) -> tuple[FloatArray, FloatArray]:
        """Both Qs and both Vs at every site, `q_S2` and `v_S2`."""
        values_SH = np.zeros((sum(map(len, utterances.sites)), 4), np.float32)
        with torch.no_grad(), packed_attention(network.model):
            for packed, sites_K in _packed(utterances, self.config.token_budget):
                outputs_KHB = network(to_tensors(packed, self._device))
                values_SH[sites_K] = self._values(outputs_KHB).cpu().numpy()
        return values_SH[:, :2], values_SH[:, 2:]

    def _values(self, outputs_KHB: torch.Tensor) -> torch.Tensor:
        return self._classes.value(outputs_KHB) if self.config.loss == "hl_gauss" else outputs_KHB.squeeze(-1)

    def _losses(self, outputs_KHB: torch.Tensor, sites_K: IntArray, targets: SiteTargets) -> torch.Tensor:
        """The weighted losses of Q and of V, each summed over both critics; shape (2,)."""
        targets_KH = np.concatenate([targets.q_S2[sites_K], targets.v_S2[sites_K]], axis=1)
        weights_K2 = np.stack([targets.q_weights_S[sites_K], targets.v_weights_S[sites_K]], axis=1)
        wanted = torch.as_tensor(targets_KH, device=self._device).flatten()
        if self.config.loss == "hl_gauss":
            of_sites = self._classes.loss(outputs_KHB.flatten(0, 1), wanted)
        else:
            of_sites = squared_error(outputs_KHB.flatten(), wanted)
        by_kind_K2 = of_sites.view(-1, 2, 2).sum(-1)  # (site, Q or V, which of both critics)
        return (by_kind_K2 * torch.as_tensor(weights_K2, device=self._device)).sum(0)

    @torch.no_grad()
    def _follow(self) -> None:
        for name, parameter in self._followers.items():
            parameter.lerp_(self._trainable[name], self.config.tau)


class _Network(torch.nn.Module):
    """A decoder and four heads: both Qs, then both Vs."""

    def __init__(self, model: PreTrainedModel, outputs: int, seed: int) -> None:
        super().__init__()
        self.model = model
        width: int = model.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "utterance critic"))
            self.heads = torch.nn.ModuleList([_head(width, outputs) for _ in range(4)])
        self.heads.to(device=model.device, dtype=model.dtype)

    def forward(self, batch: PackedTensors) -> torch.Tensor:
        """What every head says at every site of the batch, (K, 4, outputs)."""
        hidden_NE = packed_hidden(self.model, batch.token_ids_N, batch.position_ids_N, batch.layout)
        hidden_KE = hidden_NE.index_select(0, batch.sources_K)
        outputs_KHB = torch.stack([head(hidden_KE) for head in self.heads], dim=1)
        return outputs_KHB if outputs_KHB.dtype == torch.float64 else outputs_KHB.float()


def _head(width: int, outputs: int) -> torch.nn.Sequential:
    last = torch.nn.Linear(width, outputs)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), last)


def explained_variance(estimates: TurnEstimates, episodes: Sequence[Trajectory], gamma: float) -> dict[str, float]:
    """1 - Var(G - X) / Var(G) for X = Q and V against the returns G of the episodes, as far as they are known."""
    returns_U = returns_of(find_utterances(episodes), gamma)
    variance = returns_U.var() if returns_U.size else 0.0
    explained = {"q": estimates.q_U, "v": estimates.v_U}
    return {
        f"{name}_explained_variance": float(1 - (returns_U - values_U).var() / variance) if variance > 0 else 0.0
        for name, values_U in explained.items()
    }


def _packed(utterances: Utterances, token_budget: int) -> list[tuple[PackedBatch, IntArray]]:
    """The rows as packed batches that are read at their sites, each with the numbers of its sites."""
    counts = [len(sites) for sites in utterances.sites]
    numbers = np.split(np.arange(sum(counts), dtype=np.int32), np.cumsum(counts)[:-1]) if counts else []
    rows = [_read_at(row, sites) for row, sites in zip(utterances.rows, utterances.sites, strict=True)]
    return [
        (batch, np.concatenate([numbers[row] for row in batch.rows_D.tolist()])) for batch in pack(rows, token_budget)
    ]


def _read_at(token_ids_T: IntArray, sites: IntArray) -> TrainingRow:
    """A row that asks for the prediction after each of `sites`; one more token stands for what would come last."""
    ids = np.append(token_ids_T, token_ids_T[-1:])
    zeros, weights = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32)
    weights[sites] = 1.0
    return TrainingRow(ids, zeros.astype(np.bool_), zeros, zeros, weights, zeros.astype(np.int32))
