"""The utterance-level critic meets groups: updates on draws from the replay, and an advantage per turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from agent_rl.credit import get_estimator
from agent_rl.credit.estimator import TurnValues
from agent_rl.credit.rows import row_groups, to_rows
from agent_rl.learner.bellman import Float64s
from agent_rl.learner.critic import Critic
from agent_rl.learner.utterance_critic import UtteranceCritic, explained_variance
from agent_rl.store.replay import Replay
from agent_rl.types import FloatArray, Group, Segment, TrainingRow, Trajectory
from agent_rl.valuation.token import group_values

PolicyLogprobs: TypeAlias = Callable[[Sequence[TrainingRow]], list[FloatArray]]
"""Log-probs under the present policy of the weighted tokens of rows."""


class UtteranceValuation:
    """Q and V of turns. The values are those of after learning: targets come from the replay, not from the values.

    With a `baseline`, a token critic learns what the advantage of a turn will be, seen from inside of it.
    """

    def __init__(
        self, critic: UtteranceCritic, replay: Replay, policy: PolicyLogprobs, baseline: Critic | None = None
    ) -> None:
        self._critic = critic
        self._replay = replay
        self._policy = policy
        self._baseline = baseline
        self.alone_steps = critic.config.alone_steps

    def assess(self, groups: Sequence[Group], step: int) -> tuple[list[TurnValues], dict[str, float]]:
        """Updates of the critic, then the advantages of the turns, and how well Q and V explain the returns."""
        if not any(episode.sampled_tokens for group in groups for episode in group.valid):
            return [TurnValues(tuple(np.zeros(len(e.turns), np.float32) for e in g.valid)) for g in groups], {}
        config = self._critic.config
        draws = self._replay.draws(groups, step, config.updates, config.groups_per_update)
        reports = [self._update([episode for group in drawn for episode in group.valid]) for drawn in draws]
        episodes = [episode for group in groups for episode in group.valid]
        estimates = self._critic.estimate(episodes)
        report = {name: float(np.mean([report[name] for report in reports])) for name in reports[0]}
        report |= explained_variance(estimates, episodes, config.gamma)
        report |= {
            "q": float(estimates.q_U.mean()),
            "v": float(estimates.v_U.mean()),
            "advantage_std": float(estimates.advantages_U.std()),
        }
        of_turns = iter(estimates.advantages_U.tolist())
        values = [TurnValues(tuple(_per_turn(episode, of_turns) for episode in group.valid)) for group in groups]
        return self._with_baseline(groups, values, report)

    def prepare_rows(
        self, rows: list[TrainingRow], groups: Sequence[Group], values: Sequence[TurnValues]
    ) -> list[TrainingRow]:
        """As they are: the policy knows nothing of this critic."""
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Live tensors: write them before the next step."""
        baseline = {} if self._baseline is None else {"baseline": self._baseline.state_dict()}
        return {"utterance": self._critic.state_dict(), **baseline}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit."""
        self._critic.load_state_dict(state["utterance"])
        if self._baseline is not None:
            self._baseline.load_state_dict(state["baseline"])

    def _update(self, episodes: Sequence[Trajectory]) -> dict[str, float]:
        if self._critic.config.actions == "stored":
            return self._critic.update(episodes)
        weights_U = importance(self._policy, episodes, self._critic.config.max_importance)
        report = self._critic.update(episodes, weights_U)
        return {**report, "importance": float(weights_U.mean()) if weights_U.size else 1.0}

    def _with_baseline(
        self, groups: Sequence[Group], values: list[TurnValues], report: dict[str, float]
    ) -> tuple[list[TurnValues], dict[str, float]]:
        """The baseline's expectations, as they were before it learned from these turns."""
        if self._baseline is None:
            return values, report
        expected = [value.tokens for value in group_values(self._baseline, groups)]
        rows = to_rows(groups, get_estimator("archer")(groups, values), "token_mean")
        learned = self._baseline.step(rows, row_groups(groups))
        report |= {f"baseline_{name}": value for name, value in learned.items()}
        return [v._replace(baseline=b) for v, b in zip(values, expected, strict=True)], report


def importance(policy: PolicyLogprobs, episodes: Sequence[Trajectory], limit: float) -> Float64s:
    """min(p / p_sampler, limit) of every utterance of `episodes`: how likely the present policy says the same."""
    segments = [segment for episode in episodes for segment in episode.segments]
    rows = [_sampled(segment) for segment in segments]
    ratios = iter(
        (now_T - then.rollout_logprobs_T) * (then.weights_T > 0) for now_T, then in zip(policy(rows), rows, strict=True)
    )
    weights: list[float] = []
    for episode in episodes:
        of_episode = [next(ratios) for _ in episode.segments]
        spoken = (turn for turn in episode.turns if turn.end > turn.start)
        weights += [float(of_episode[t.segment][t.start : t.end].sum(dtype=np.float64)) for t in spoken]
    return np.exp(np.minimum(np.array(weights, np.float64), np.log(limit)))


def _sampled(segment: Segment) -> TrainingRow:
    """A row that weighs its sampled tokens; nothing predicts the first one."""
    weights_T = segment.response_mask_T.astype(np.float32)
    weights_T[:1] = 0.0
    return TrainingRow(
        segment.token_ids_T,
        segment.response_mask_T,
        segment.rollout_logprobs_T,
        np.zeros_like(weights_T),
        weights_T,
        segment.weight_versions_T,
    )


def _per_turn(episode: Trajectory, advantages: Iterator[float]) -> FloatArray:
    return np.array([next(advantages) if turn.end > turn.start else 0.0 for turn in episode.turns], np.float32)
