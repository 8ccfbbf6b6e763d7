"""Credit assignment: a group of trajectories in, an advantage per token out. Pure numpy functions.

A new estimator is one function `(Group) -> Advantages` and one line in `ESTIMATORS`.
"""

from __future__ import annotations

from agent_rl.credit.groups import Advantages, Estimator, dr_grpo, grpo, has_signal, rloo
from agent_rl.credit.rows import Aggregation, row_groups, to_rows
from agent_rl.errors import not_found

__all__ = [
    "ESTIMATORS",
    "Advantages",
    "Aggregation",
    "Estimator",
    "get_estimator",
    "has_signal",
    "row_groups",
    "to_rows",
]

ESTIMATORS: dict[str, Estimator] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
}


def get_estimator(name: str) -> Estimator:
    """The estimator called `name`. Raises `NotFoundError` with the nearest name."""
    if name not in ESTIMATORS:
        raise not_found("estimator", name, ESTIMATORS)
    return ESTIMATORS[name]
