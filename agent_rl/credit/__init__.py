"""Credit assignment: groups of trajectories in, an advantage per token out. Pure numpy functions.

A new estimator is one function and one line here: `GROUP_ESTIMATORS` see one group at a time, `BATCH_ESTIMATORS` all
of a batch, `CRITIC_ESTIMATORS` and `UTTERANCE_ESTIMATORS` all of a batch with what a critic of tokens or of whole turns
says of it. Its keyword arguments are its options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from agent_rl.config import bind_options
from agent_rl.credit.archer import TurnValues, archer
from agent_rl.credit.batchwise import lite_ppo, reinforce_pp, reinforce_pp_baseline
from agent_rl.credit.estimator import (
    Advantages,
    BatchEstimator,
    CriticEstimator,
    GroupEstimator,
    Values,
    differ,
    rewards_of,
    turn_rewards,
)
from agent_rl.credit.gae import bi_level_gae, token_gae, turn_gae
from agent_rl.credit.groups import asymre, dr_grpo, grpo, opmd, rloo, w_reinforce
from agent_rl.credit.rows import Aggregation, row_groups, to_rows
from agent_rl.credit.turns import gigpo, mt_grpo, return_to_go, rlvmr, roles
from agent_rl.errors import not_found
from agent_rl.types import Group

__all__ = [
    "BATCH_ESTIMATORS",
    "CRITIC_ESTIMATORS",
    "GROUP_ESTIMATORS",
    "UTTERANCE_ESTIMATORS",
    "Advantages",
    "Aggregation",
    "CriticKind",
    "Estimator",
    "TurnValues",
    "Values",
    "get_estimator",
    "has_signal",
    "row_groups",
    "to_rows",
]

GROUP_ESTIMATORS: dict[str, GroupEstimator] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "opmd": opmd,
    "asymre": asymre,
    "w_reinforce": w_reinforce,
    "return_to_go": return_to_go,
    "mt_grpo": mt_grpo,
    "gigpo": gigpo,
    "rlvmr": rlvmr,
    "roles": roles,
}
BATCH_ESTIMATORS: dict[str, BatchEstimator] = {
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
    "lite_ppo": lite_ppo,
}
CRITIC_ESTIMATORS: dict[str, CriticEstimator] = {
    "token_gae": token_gae,
    "turn_gae": turn_gae,
    "bi_level_gae": bi_level_gae,
}
UTTERANCE_ESTIMATORS: dict[str, CriticEstimator] = {"archer": archer}


def has_signal(group: Group) -> bool:
    """Whether the valid members' rewards differ. A group without signal has no advantages (DAPO's filter)."""
    return differ(rewards_of(group))


def _turns_differ(group: Group) -> bool:
    """Whether any turns' rewards differ, when episodes of equal reward may still have earned it differently."""
    rewards = [tuple(turn_rewards(trajectory)) for trajectory in group.valid]
    return len(set(rewards)) > 1


def _always(group: Group) -> bool:
    return bool(group.valid)


_SIGNALS: dict[str, Callable[[Group], bool]] = {
    **dict.fromkeys(("asymre", "w_reinforce", "reinforce_pp", *CRITIC_ESTIMATORS, *UTTERANCE_ESTIMATORS), _always),
    **dict.fromkeys(("return_to_go", "mt_grpo", "gigpo", "rlvmr", "roles"), _turns_differ),
}
"""Which groups teach something; by default those whose rewards differ."""


CriticKind: TypeAlias = Literal["token", "utterance"]
"""What is valued: every prefix of a row (`Values`), or whole turns (`TurnValues`)."""


@dataclass(frozen=True, slots=True)
class Estimator:
    """An estimator with its options bound. `critic` says whose values it wants."""

    name: str
    critic: CriticKind | None
    has_signal: Callable[[Group], bool]
    _credit: Callable[[Sequence[Group], Sequence[Any] | None], list[Advantages]]

    def __call__(self, groups: Sequence[Group], values: Sequence[Any] | None = None) -> list[Advantages]:
        """Advantages of a batch, for each group's valid members."""
        return self._credit(groups, values)


def get_estimator(name: str, options: Mapping[str, Any] | None = None) -> Estimator:
    """The estimator called `name`. Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option."""
    known = (*GROUP_ESTIMATORS, *BATCH_ESTIMATORS, *CRITIC_ESTIMATORS, *UTTERANCE_ESTIMATORS)
    if name not in known:
        raise not_found("estimator", name, known)
    signal, what = _SIGNALS.get(name, has_signal), f"the estimator {name}"
    if (of_group := GROUP_ESTIMATORS.get(name)) is not None:
        one = partial(of_group, **bind_options(what, of_group, options or {}))
        return Estimator(name, None, signal, lambda groups, values: [one(group) for group in groups])
    if (of_batch := BATCH_ESTIMATORS.get(name)) is not None:
        batch = partial(of_batch, **bind_options(what, of_batch, options or {}))
        return Estimator(name, None, signal, lambda groups, values: batch(groups))
    kind, registry = ("token", CRITIC_ESTIMATORS) if name in CRITIC_ESTIMATORS else ("utterance", UTTERANCE_ESTIMATORS)
    with_critic = partial(registry[name], **bind_options(what, registry[name], options or {}))
    return Estimator(name, kind, signal, with_critic)
