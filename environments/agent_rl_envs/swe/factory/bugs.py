"""A bug that tests notice, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_rl_envs.swe.factory.mutations import Mutation
from agent_rl_envs.swe.factory.statements import Symptom, symptom_from


@dataclass(frozen=True, slots=True)
class Bug:
    """A verified bug. `covering` are the tests that run its function, `failing` those of them that notice it."""

    path: str
    mutation: Mutation
    failing: tuple[str, ...]
    covering: tuple[str, ...]
    symptoms: tuple[Symptom, ...]

    @property
    def place(self) -> str:
        """The function that it is in."""
        return f"{self.path}:{self.mutation.function}"


def bug_to_data(bug: Bug) -> dict[str, Any]:
    """As JSON."""
    mutation = bug.mutation
    return {
        "path": bug.path,
        "mutation": [
            mutation.function,
            mutation.first_line,
            mutation.kind,
            mutation.start,
            mutation.end,
            mutation.replacement,
        ],
        "failing": list(bug.failing),
        "covering": list(bug.covering),
        "symptoms": [symptom.to_data() for symptom in bug.symptoms],
    }


def bug_from(data: dict[str, Any]) -> Bug:
    """The bug again."""
    symptoms = tuple(symptom_from(symptom) for symptom in data["symptoms"])
    return Bug(data["path"], Mutation(*data["mutation"]), tuple(data["failing"]), tuple(data["covering"]), symptoms)
