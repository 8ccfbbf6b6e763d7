"""What a curriculum can be told, and the curriculum that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from agent_rl.config import Config, build
from agent_rl.curriculum import Curriculum, TaskSampler, get_weighting, shuffled_epochs
from agent_rl.curriculum.adaptive import AdaptiveCurriculum
from agent_rl.curriculum.domains import Domains
from agent_rl.curriculum.gvm import Gvm
from agent_rl.curriculum.schedules import linear, multiplicative
from agent_rl.errors import ConfigError, UserError
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import Task


class CurriculumConfig(Config):
    """Which tasks come when, with how many episodes, within which limits. Nothing of this changes an evaluation."""

    kind: Literal["none", "sec", "dump", "domain_weights", "band", "weakness"] = Field(
        default="none", description="How domains of tasks are weighed; none: all tasks in turn, in shuffled epochs."
    )
    options: dict[str, float] = Field(
        default_factory=dict[str, float], description="The kind's own options, such as temperature 0.5."
    )
    domain: str = Field(
        default="tags",
        description="What the tasks of a domain share: tags (all of them), environment, task (each is a domain of its "
        "own), or the first tag that begins with this, such as difficulty:",
    )
    sizes: Literal["equal", "gvm"] = Field(
        default="equal", description="Episodes of each group; gvm: group_size on average, by gradient variance."
    )
    first_turns: int | None = Field(default=None, ge=1, description="What limits.max_turns begins with.")
    first_response_tokens: int | None = Field(
        default=None, ge=1, description="What limits.max_response_tokens begins with."
    )
    first_context_tokens: int | None = Field(
        default=None, ge=2, description="What limits.max_context_tokens begins with."
    )
    growth: Literal["multiplicative", "linear"] = Field(
        default="multiplicative", description="How limits grow: to 2, 3, ... times the first values, or evenly."
    )
    growth_steps: int = Field(default=0, ge=0, description="Training steps in which limits grow to those of limits.")

    @model_validator(mode="after")
    def _all_is_used(self) -> Self:
        try:
            if self.kind != "none":
                get_weighting(self.kind, self.options)
        except UserError as error:  # pydantic explains a `ValueError`
            raise ValueError(str(error)) from error
        if self.kind == "none" and self.options:
            raise ValueError("options are those of a kind: set kind, such as sec, or leave out options.")
        if self.kind == "none" and self.sizes == "equal" and self.domain != "tags":
            raise ValueError("nothing looks at domains: set kind or sizes, or leave out domain.")
        if bool(self.growth_steps) != bool(self._firsts()):
            raise ValueError(
                "limits grow from first_turns, first_response_tokens or first_context_tokens in growth_steps: set one "
                "of the first and growth_steps, or none of them."
            )
        if self.growth != "multiplicative" and not self.growth_steps:
            raise ValueError("nothing grows: set growth_steps and what to begin with, or leave out growth.")
        return self

    def limits_at(self, limits: RolloutLimits) -> Callable[[int], RolloutLimits] | None:
        """The limits by training step. Raises `ConfigError` when they begin above `limits` or contradict each other."""
        if not self.growth_steps:
            return None
        grow = multiplicative if self.growth == "multiplicative" else linear
        last = limits.model_dump()
        schedules = {name: grow(first, last[name], self.growth_steps) for name, first in self._firsts().items()}
        for name, first in self._firsts().items():
            if first > last[name]:
                raise ConfigError(
                    f"curriculum.{name.replace('max', 'first')}={first} is above limits.{name}={last[name]}: lower it."
                )

        def at(step: int) -> RolloutLimits:
            return build(RolloutLimits, {**last, **{name: round(value(step)) for name, value in schedules.items()}})

        for step in range(self.growth_steps):
            at(step)
        return at

    def open(
        self,
        tasks: Sequence[Task],
        *,
        seed: int,
        group_size: int,
        least: int,
        limits: RolloutLimits,
        success: float,
        change: Callable[[TaskSampler], TaskSampler],
    ) -> Curriculum:
        """The curriculum over these tasks. Raises `ConfigError` for domains or limits that cannot be."""
        if self.sizes == "gvm" and group_size <= least:
            raise ConfigError(
                f"curriculum.sizes gvm has nothing to share out: raise group_size={group_size} above the {least} "
                "episodes that each group needs (min_group_members)."
            )
        if self == CurriculumConfig():
            return Curriculum(change(shuffled_epochs(tasks, seed)), group_size)
        return AdaptiveCurriculum(
            tasks,
            Domains(tasks, self.domain),
            seed=seed,
            group_size=group_size,
            weighting=None if self.kind == "none" else get_weighting(self.kind, self.options),
            sizing=Gvm() if self.sizes == "gvm" else None,
            least=least,
            limits_at=self.limits_at(limits),
            success=success,
            change=change,
        )

    def _firsts(self) -> dict[str, int]:
        firsts = {
            "max_turns": self.first_turns,
            "max_response_tokens": self.first_response_tokens,
            "max_context_tokens": self.first_context_tokens,
        }
        return {name: first for name, first in firsts.items() if first is not None}
