"""Options of guidance."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from agent_rl.config import Config, changed_fields

GuidanceKind: TypeAlias = Literal["none", "hint", "knowledge", "critique", "prefix"]


_USERS: dict[str, tuple[GuidanceKind, ...]] = {
    "share": ("hint", "prefix"),
    "feedback": ("hint", "knowledge"),
    "attempt_chars": ("hint", "knowledge", "critique"),
    "teacher": ("critique",),
}
"""Which kinds an option is for, where it is not for all."""


class TeacherConfig(Config):
    """A model behind an OpenAI-compatible endpoint that says what was wrong with an attempt."""

    model: str = Field(description="The name that the endpoint knows it by.")
    base_url: str = Field(default="https://api.openai.com/v1", description="An OpenAI-compatible endpoint.")
    api_key_variable: str = Field(default="OPENAI_API_KEY", description="Environment variable that holds its key.")
    temperature: float = Field(default=0.0, ge=0, description="Sampling temperature of critiques.")
    max_tokens: int = Field(default=1024, ge=1, description="Tokens of a critique.")
    timeout_s: float = Field(default=120.0, gt=0, description="Deadline of a critique, retries included.")
    max_concurrency: int = Field(default=32, ge=1, description="Requests that run at once.")


class GuidanceConfig(Config):
    """Whether and how groups that failed are helped: with more attempts, each of which is given something."""

    kind: GuidanceKind = Field(
        default="none", description="What is given: hint, knowledge points, critique, or an expert's prefix."
    )
    success: float = Field(default=1.0, description="Reward from which an episode is a success.")
    up_to: float = Field(
        default=0.0, ge=0, lt=1, description="Share of successes up to which a group is guided; 0: those without any."
    )
    rounds: int = Field(
        default=1, ge=1, description="How often a group is guided, more strongly each time, until something succeeds."
    )
    attempts: int = Field(default=4, ge=1, description="Guided episodes of a round.")
    share: float = Field(
        default=0.25, gt=0, le=1, description="Part of a hint or of an expert's actions that each round adds."
    )
    feedback: bool = Field(default=False, description="Beside a hint, show how a failed attempt ended.")
    attempt_chars: int = Field(
        default=4000, ge=1, description="Characters of a failed attempt, from its end, that guidance looks at or shows."
    )
    in_context: bool = Field(
        default=True, description="Train on guided episodes as sampled; else with the guidance left out of the context."
    )
    credit: Literal["replace", "join", "imitation"] = Field(
        default="replace",
        description="Guided episodes take the places of failed ones in their group, join it, or are only imitated.",
    )
    teacher: TeacherConfig | None = Field(default=None, description="Who criticises; none: the policy itself.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        changed = {path.partition(".")[0] for path in changed_fields(self)}
        if self.kind == "none" and changed:
            raise ValueError("nothing says how groups are guided: set guidance.kind, such as guidance.kind hint.")
        for option in sorted(changed & _USERS.keys()):
            if self.kind not in _USERS[option]:
                raise ValueError(f"{self.kind} has no {option}: leave it out, or take {' or '.join(_USERS[option])}.")
        if self.kind == "prefix" and not self.in_context:
            raise ValueError("an expert's prefix is where the policy begins: set in_context, it cannot be left out.")
        if "attempt_chars" in changed and self.kind != "critique" and not self.feedback:
            raise ValueError("nobody looks at failed attempts: leave out attempt_chars, or set feedback.")
        return self
