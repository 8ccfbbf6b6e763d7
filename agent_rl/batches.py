"""Batches of groups as they come, and what one batch says about the policy. Knows neither engine nor learner."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np

from agent_rl.credit import has_signal
from agent_rl.types import Group, Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The groups of one training step: `trained` teach something, `idle` have no signal or no valid member.

    `held` is how many staleness slots the batch still occupies.
    """

    trained: tuple[Group, ...]
    idle: tuple[Group, ...]
    held: int

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups, in logical order."""
        return tuple(sorted((*self.trained, *self.idle), key=lambda group: group.index))


async def assemble(
    groups: AsyncIterator[Group],
    size: int,
    refills: int,
    drop: Callable[[], None],
    min_members: int = 2,
    teaches: Callable[[Group], bool] = has_signal,
) -> AsyncIterator[Batch]:
    """Cut the stream of groups into batches of `size` slots. A group with fewer valid members trains nothing.

    Up to `refills` groups without signal give their slot back at once, so that a fresh group takes their place
    (DAPO, arXiv:2503.14476, section 3.2); further ones stay in the batch and train nothing.
    """
    trained: list[Group] = []
    idle: list[Group] = []
    refilled = 0
    async for group in groups:
        if len(group.valid) >= min_members and teaches(group):
            trained.append(group)
        else:
            idle.append(group)
            if refilled < refills:
                refilled += 1
                drop()
        held = len(trained) + len(idle) - refilled
        if held == size:
            yield Batch(tuple(trained), tuple(idle), held)
            trained, idle, refilled = [], [], 0


def batch_metrics(batch: Batch, weight_version: int) -> dict[str, float]:
    """What the episodes of a batch say: means over valid episodes, failures and retries by owner, staleness in weight
    versions.
    """
    episodes = [episode for group in batch.groups for episode in group.trajectories]
    valid = [episode for episode in episodes if episode.failure is None]
    owners = Counter(str(episode.failure.owner) for episode in episodes if episode.failure is not None)
    retries = Counter(str(failure.owner) for episode in episodes for failure in episode.earlier_failures)
    metrics = {
        "groups": float(len(batch.groups)),
        "groups_trained": float(len(batch.trained)),
        "episodes": float(len(valid)),
        "episodes_failed": float(len(episodes) - len(valid)),
        **{f"failures/{owner}": float(count) for owner, count in sorted(owners.items())},
        "retries": float(retries.total()),
        **{f"retries/{owner}": float(count) for owner, count in sorted(retries.items())},
    }
    if valid:
        metrics |= {name: float(np.mean([value(e) for e in valid])) for name, value in _EPISODE_METRICS.items()}
        names = sorted({name for episode in valid for name in episode.metrics})
        metrics |= {f"environment/{name}": float(np.mean([e.metrics.get(name, 0.0) for e in valid])) for name in names}
    if ages := [weight_version - _oldest_version(e) for g in batch.trained for e in g.valid if e.sampled_tokens]:
        metrics |= {"staleness_mean": float(np.mean(ages)), "staleness_max": float(max(ages))}
    return metrics


def _tool_errors(episode: Trajectory) -> int:
    return sum(result.error is not None for turn in episode.turns for result in turn.tool_results)


def _oldest_version(episode: Trajectory) -> int:
    return min(int(s.weight_versions_T[s.response_mask_T].min()) for s in episode.segments if s.response_mask_T.any())


_EPISODE_METRICS: dict[str, Callable[[Trajectory], float]] = {
    "reward": lambda episode: episode.reward,
    "turns": lambda episode: episode.steps,
    "sampled_tokens": lambda episode: episode.sampled_tokens,
    "tool_calls": lambda episode: sum(len(turn.tool_results) for turn in episode.turns),
    "tool_errors": _tool_errors,
    "truncated": lambda episode: episode.truncated,
    "forks": lambda episode: max(0, len(episode.segments) - 1),
    "episode_s": lambda episode: episode.duration_s,
}
