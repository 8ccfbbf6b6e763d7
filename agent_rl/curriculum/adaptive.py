"""The curriculum that follows results: domains drawn by a weighting, limits that grow, sizes of groups by variance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from agent_rl.credit.estimator import Advantages
from agent_rl.curriculum.base import Curriculum, TaskSampler, shuffled_epochs
from agent_rl.curriculum.domains import Array, Domains, Outcomes, State, Weighting
from agent_rl.curriculum.gvm import Gvm, allocate, score_norm
from agent_rl.curriculum.weakness import Weakness, weak
from agent_rl.rollout.group import PlayEpisode, PlayWithin
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.seeding import derive_seed, stream
from agent_rl.types import Group, Task, Trajectory

_SHOWN = 32  # domains that have metrics of their own


@dataclass(frozen=True, slots=True)
class _Admitted:
    """What was decided for a group: the position of its task, its size, and the step whose limits it keeps."""

    position: int
    size: int
    step: int


class AdaptiveCurriculum(Curriculum):
    """Draws a domain by `weighting`, then the next task of it in shuffled epochs; without one, all tasks in turn.

    `sizing` shares the episodes of the groups that are admitted together between them, at least `least` each.
    `limits_at` are the limits by training step. Episodes with a reward of `success` succeed. `change` makes
    other versions of the tasks.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        domains: Domains,
        *,
        seed: int,
        group_size: int,
        weighting: Weighting | None = None,
        sizing: Gvm | None = None,
        least: int = 2,
        limits_at: Callable[[int], RolloutLimits] | None = None,
        success: float = 1.0,
        change: Callable[[TaskSampler], TaskSampler] = lambda sampler: sampler,
    ) -> None:
        super().__init__(change(lambda index: tasks[self._admitted[index].position]), group_size)
        self._tasks = tasks
        self._domains = domains
        self._seed = seed
        self._weighting = weighting
        self._sizing = sizing
        self._least = least
        self._limits_at = limits_at
        self._success = success
        self._in_turn = shuffled_epochs(range(len(tasks)), seed)
        self._of_domain = [
            shuffled_epochs(members, derive_seed(seed, "domain", number))
            for number, members in enumerate(domains.members)
        ]
        self._admitted: dict[int, _Admitted] = {}
        self._next = 0
        self._step = 0
        self._drawn = [0] * len(domains)
        self._weights: State = {} if weighting is None else weighting.start(len(domains))
        self._sizes: State = {} if sizing is None else sizing.start(len(domains))
        self._shares: Array = np.zeros(len(domains))

    @property
    def weak_tasks(self) -> list[Task]:
        """The tasks of domains that `weakness` finds weak now, to be shown to whoever proposes new ones."""
        if not isinstance(self._weighting, Weakness):
            return []
        weak_D = weak(self._weights["success_DV"], self._weighting.ceiling)
        return [task for task, domain in zip(self._tasks, self._domains.of, strict=True) if weak_D[domain]]

    def group_size(self, index: int) -> int:
        """As was decided when it was admitted."""
        return self._admitted[index].size

    def within_limits(self, play: PlayWithin) -> PlayEpisode:
        """With the limits of the step in which its group was admitted."""
        limits_at = self._limits_at
        if limits_at is None:
            return play

        async def play_within(task: Task, *, group_index: int, member: int, seed: int) -> Trajectory:
            limits = limits_at(self._admitted[group_index].step)
            return await play(task, group_index=group_index, member=member, seed=seed, limits=limits)

        return play_within

    def begin(self, capacity: int) -> None:
        """Admits what fits beside the groups that were in flight."""
        self.admit(capacity - len(self._admitted))

    def admit(self, count: int) -> None:
        """Decides on each, and on the sizes of all of them together."""
        indices = range(self._next, self._next + count)
        self._next += count
        positions = [self._draw(index) for index in indices]
        sizes = self._sizes_of([self._domains.of[position] for position in positions])
        for index, position, size in zip(indices, positions, sizes, strict=True):
            self._admitted[index] = _Admitted(position, size, self._step)

    def observe(self, groups: Sequence[Group], advantages: Mapping[int, Advantages]) -> None:
        """Groups without a valid member say nothing."""
        domains = [self._domains.of[self._admitted.pop(group.index).position] for group in groups]
        self._step += 1
        self._shares = np.bincount(domains, minlength=len(self._domains)) / len(domains)
        outcomes = self._outcomes(groups, domains, advantages)
        if self._weighting is not None:
            self._weights = self._weighting.update(self._weights, outcomes)
        if self._sizing is not None:
            self._sizes = self._sizing.update(self._sizes, outcomes)

    def metrics(self) -> dict[str, float]:
        """Weights, shares of the step, sizes and limits; `effective_domains` is exp of the weights' entropy."""
        metrics: dict[str, float] = {}
        if self._limits_at is not None:
            limits = self._limits_at(self._step)
            for name in ("max_turns", "max_response_tokens", "max_context_tokens"):
                metrics[name] = float(getattr(limits, name))
        if self._sizing is not None and self._admitted:
            sizes = [admitted.size for admitted in self._admitted.values()]
            metrics |= {"group_size_min": float(min(sizes)), "group_size_max": float(max(sizes))}
        if self._weighting is not None:
            weights = self._weighting.weights(self._weights)
            metrics["effective_domains"] = float(np.exp(-np.sum(weights * np.log(np.maximum(weights, 1e-300)))))
            if isinstance(self._weighting, Weakness):
                metrics["weak_tasks"] = float(len(self.weak_tasks))
            if len(weights) <= _SHOWN:
                metrics |= {f"weight/{n}": float(w) for n, w in zip(self._domains.names, weights, strict=True)}
        if len(self._domains) <= _SHOWN:
            metrics |= {f"share/{n}": float(s) for n, s in zip(self._domains.names, self._shares, strict=True)}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The algorithms' states, and what was decided for groups in flight."""
        return {
            "admitted": {index: astuple(admitted) for index, admitted in self._admitted.items()},
            "next": self._next,
            "step": self._step,
            "drawn": list(self._drawn),
            "weights": {name: array.tolist() for name, array in self._weights.items()},
            "sizes": {name: array.tolist() for name, array in self._sizes.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, before `begin`."""
        self._admitted = {index: _Admitted(*decided) for index, decided in state["admitted"].items()}
        self._next, self._step, self._drawn = state["next"], state["step"], list(state["drawn"])
        self._weights = {name: np.array(values) for name, values in state["weights"].items()}
        self._sizes = {name: np.array(values) for name, values in state["sizes"].items()}

    def _draw(self, index: int) -> int:
        if self._weighting is None:
            return self._in_turn(index)
        weights = self._weighting.weights(self._weights)
        domain = int(stream(self._seed, "curriculum", index).choice(len(weights), p=weights))
        self._drawn[domain] += 1
        return self._of_domain[domain](self._drawn[domain] - 1)

    def _sizes_of(self, domains: list[int]) -> list[int]:
        if self._sizing is None or not domains:
            return [self._group_size] * len(domains)
        ratios = self._sizing.ratios(self._sizes)[domains]
        return allocate(ratios, len(domains) * self._group_size, self._least).tolist()

    def _outcomes(
        self, groups: Sequence[Group], domains: Sequence[int], advantages: Mapping[int, Advantages]
    ) -> Outcomes:
        rows = [
            (domain, number, learned, episode.reward, episode.reward >= self._success, score_norm(episode))
            for number, (group, domain) in enumerate(zip(groups, domains, strict=True))
            for episode, learned in zip(group.valid, _magnitudes(group, advantages.get(group.index)), strict=True)
        ]
        domain_E, group_E, *values = np.array(rows, np.float64).reshape(-1, 6).T
        return Outcomes(domain_E.astype(np.int64), group_E.astype(np.int64), *values)


def _magnitudes(group: Group, advantages: Advantages | None) -> list[float]:
    """The mean |advantage| of the sampled tokens of each valid episode; 0 where it was not trained on."""
    if advantages is None:
        return [0.0] * len(group.valid)
    sums = [sum(float(np.abs(row).sum()) for row in rows) for rows in advantages]
    return [total / max(1, episode.sampled_tokens) for total, episode in zip(sums, group.valid, strict=True)]
