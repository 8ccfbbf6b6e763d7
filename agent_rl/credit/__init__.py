"""Credit assignment: groups of trajectories in, an advantage per token out. Pure numpy functions.

A new estimator is one function and one line here: `EPISODE_ESTIMATORS` give each episode an advantage,
`STEP_ESTIMATORS` each step; `CRITIC_ESTIMATORS` and `UTTERANCE_ESTIMATORS` give one to each token, with what a critic
of tokens or of whole turns says. All see the valid `Episodes` of a batch as flat arrays. Their keyword arguments are
their options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from agent_rl.config import bind_options
from agent_rl.credit.archer import archer
from agent_rl.credit.batchwise import lite_ppo, oreal, reinforce_pp, reinforce_pp_baseline
from agent_rl.credit.episodes import Episodes
from agent_rl.credit.estimator import (
    Advantages,
    CriticEstimator,
    EpisodeEstimator,
    StepEstimator,
    TurnValues,
    UtteranceEstimator,
    Values,
)
from agent_rl.credit.gae import bi_level_gae, token_gae, turn_gae
from agent_rl.credit.groups import asymre, dr_grpo, grpo, opmd, pairwise, rloo, w_reinforce
from agent_rl.credit.rows import Aggregation, row_groups, to_rows
from agent_rl.credit.shaping import SHAPINGS, get_shaping
from agent_rl.credit.turns import gigpo, mt_grpo, return_to_go, rlvmr, roles
from agent_rl.errors import not_found
from agent_rl.types import Group

__all__ = [
    "CRITIC_ESTIMATORS",
    "EPISODE_ESTIMATORS",
    "SHAPINGS",
    "STEP_ESTIMATORS",
    "UTTERANCE_ESTIMATORS",
    "Advantages",
    "Aggregation",
    "CriticKind",
    "Episodes",
    "Estimator",
    "TurnValues",
    "Values",
    "get_estimator",
    "get_shaping",
    "has_signal",
    "mean_reward_within",
    "row_groups",
    "to_rows",
]

EPISODE_ESTIMATORS: dict[str, EpisodeEstimator] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "pairwise": pairwise,
    "opmd": opmd,
    "asymre": asymre,
    "w_reinforce": w_reinforce,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
    "lite_ppo": lite_ppo,
    "oreal": oreal,
}
STEP_ESTIMATORS: dict[str, StepEstimator] = {
    "return_to_go": return_to_go,
    "mt_grpo": mt_grpo,
    "gigpo": gigpo,
    "rlvmr": rlvmr,
    "roles": roles,
}
CRITIC_ESTIMATORS: dict[str, CriticEstimator] = {
    "token_gae": token_gae,
    "turn_gae": turn_gae,
    "bi_level_gae": bi_level_gae,
}
UTTERANCE_ESTIMATORS: dict[str, UtteranceEstimator] = {"archer": archer}
BATCH_BASELINES = {"reinforce_pp"}
"""Estimators whose baseline is the batch's: what a group teaches cannot be told from it alone."""


CriticKind: TypeAlias = Literal["token", "utterance"]
"""What is valued: every prefix of a row (`Values`), or whole turns (`TurnValues`)."""


@dataclass(frozen=True, slots=True)
class Estimator:
    """An estimator with its options bound. `critic` says whose values it wants."""

    name: str
    critic: CriticKind | None
    _credit: Callable[[Episodes, Sequence[Any] | None], list[Advantages]]

    def __call__(self, groups: Sequence[Group], values: Sequence[Any] | None = None) -> list[Advantages]:
        """Advantages of a batch, for each group's valid members. A critic's `values` are those of each group."""
        return self._credit(Episodes(groups), values)

    def has_signal(self, group: Group) -> bool:
        """Whether the group can teach something: whether any advantage of it, taken alone, is not 0.

        With equal rewards, most estimators have none: this is DAPO's filter. With a critic's values, or a baseline of
        the batch, every group with a valid member can teach.
        """
        if self.critic is not None or self.name in BATCH_BASELINES:
            return bool(group.valid)
        [advantages] = self([group])
        return any(row.any() for rows in advantages for row in rows)


def has_signal(group: Group) -> bool:
    """Whether the valid members' rewards differ. A group without signal has no advantages (DAPO's filter)."""
    episodes = Episodes([group])
    return bool(dr_grpo(episodes).any())


def mean_reward_within(group: Group, low: float, high: float) -> bool:
    """Whether the valid members' mean reward is in [low, high]: tasks that are neither too hard nor too easy now."""
    return bool(group.valid) and low <= float(Episodes([group]).rewards_E.mean()) <= high


def get_estimator(name: str, options: Mapping[str, Any] | None = None) -> Estimator:
    """The estimator called `name`. Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option."""
    known: dict[str, Callable[..., Any]] = {
        **EPISODE_ESTIMATORS,
        **STEP_ESTIMATORS,
        **CRITIC_ESTIMATORS,
        **UTTERANCE_ESTIMATORS,
    }
    if name not in known:
        raise not_found("estimator", name, known)
    estimate = partial(known[name], **bind_options(f"the estimator {name}", known[name], options or {}))

    def credit(episodes: Episodes, values: Sequence[Any] | None) -> list[Advantages]:
        if name in EPISODE_ESTIMATORS:
            return episodes.from_episodes(estimate(episodes))
        if name in STEP_ESTIMATORS:
            return episodes.from_steps(estimate(episodes))
        if values is None:
            raise ValueError(f"the estimator {name} needs a critic's values")
        if name in UTTERANCE_ESTIMATORS:
            said = episodes.advantages_D(values), episodes.baseline_M(values)
        else:
            said = episodes.values_M(values), episodes.final_E(values)
        return episodes.from_tokens(estimate(episodes, *said))

    return Estimator(name, _critic_of(name), credit)


def _critic_of(name: str) -> CriticKind | None:
    if name in CRITIC_ESTIMATORS:
        return "token"
    return "utterance" if name in UTTERANCE_ESTIMATORS else None
