"""Curricula: which task each group plays, with how many episodes and within which limits, as training goes.

A new algorithm is one file and one line here: `KINDS` weigh domains of tasks by what training saw of them. Each is a
frozen record of options with pure functions on a state of named arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_rl.config import bind_options
from agent_rl.curriculum.band import Band
from agent_rl.curriculum.base import Curriculum, TaskSampler, shuffled_epochs
from agent_rl.curriculum.domain_weights import DomainWeights
from agent_rl.curriculum.domains import Domains, Outcomes, State, Weighting
from agent_rl.curriculum.dump import Dump
from agent_rl.curriculum.sec import Sec
from agent_rl.curriculum.weakness import Weakness
from agent_rl.errors import not_found

__all__ = [
    "KINDS",
    "Curriculum",
    "Domains",
    "Outcomes",
    "State",
    "TaskSampler",
    "Weighting",
    "get_weighting",
    "shuffled_epochs",
]

KINDS: dict[str, type[Weighting]] = {
    "sec": Sec,
    "dump": Dump,
    "domain_weights": DomainWeights,
    "band": Band,
    "weakness": Weakness,
}


def get_weighting(kind: str, options: Mapping[str, Any] | None = None) -> Weighting:
    """The algorithm called `kind`. Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option."""
    if kind not in KINDS:
        raise not_found("curriculum", kind, KINDS)
    return KINDS[kind](**bind_options(f"the curriculum {kind}", KINDS[kind], options or {}))
