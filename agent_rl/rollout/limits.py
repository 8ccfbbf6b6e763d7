"""How far one episode may go, and in which order the limits are checked. Pure: no clock, no tokens, no environment.

Order of the checks within one turn; the first that applies gives the stop reason:

1. before the model acts (`before_action`): `MAX_TURNS`, then `MAX_TOKENS` (the context leaves no room for a response);
2. after it acted (`after_action`): `MAX_TOKENS` or `RESPONSE_LENGTH` (the response was cut), then `MAX_TOOL_CALLS`;
   the environment never sees an action that is stopped here;
3. after the environment answered: `TERMINATED`, `ENVIRONMENT_TRUNCATED`, then `MAX_MISTAKES` (`after_step`).

The clock interrupts anywhere: `TIME_LIMIT` for the whole episode, a failure with an owner for one stage.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from agent_rl.config import Config
from agent_rl.types import FinishReason, StopReason


class RolloutLimits(Config):
    """Limits of one episode. A cut response ends the episode: an incomplete action must not reach the environment.

    The episode's clock starts when the setup is done, so that a slow setup is never taken for a slow agent, and it
    allows at least one generation and one step: a first turn that hangs is a failure with an owner, not a truncation.
    """

    max_turns: int = Field(default=16, ge=1, description="Actions of the model.")
    max_response_tokens: int = Field(default=1024, ge=1, description="Sampled tokens of one turn.")
    max_context_tokens: int = Field(
        default=16384, ge=2, description="Tokens of the context, prompt and responses together."
    )
    max_tool_calls: int | None = Field(default=None, ge=0, description="Tool calls of the whole episode.")
    max_corrective_turns: int | None = Field(
        default=None, ge=0, description="Turns in a row that may only repair malformed tool calls; none: any number."
    )
    setup_timeout_s: float = Field(default=60.0, gt=0, description="Deadline of the environment's reset.")
    generation_timeout_s: float = Field(default=300.0, gt=0, description="Deadline of one response.")
    step_timeout_s: float = Field(
        default=60.0, gt=0, description="Deadline of one step of the environment, all its tools."
    )
    episode_timeout_s: float = Field(default=900.0, gt=0, description="Clock of the episode after its setup.")
    clock_runs_while_generating: bool = Field(
        default=True,
        description="Whether waiting for the engine, which depends on its load, uses up the episode's time.",
    )
    close_timeout_s: float = Field(default=10.0, gt=0, description="How long the release of an episode may take.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        waits = ["generation_timeout_s", "step_timeout_s"] if self.clock_runs_while_generating else ["step_timeout_s"]
        longest_s = sum(getattr(self, name) for name in waits)
        if self.episode_timeout_s < longest_s:
            raise ValueError(
                f"episode_timeout_s={self.episode_timeout_s:g} is less than one turn may take: raise it to at least "
                f"{' + '.join(waits)} = {longest_s:g}, or lower {'those' if waits[1:] else 'that'}."
            )
        if self.max_response_tokens >= self.max_context_tokens:
            raise ValueError(
                f"max_response_tokens={self.max_response_tokens} leaves no room for a prompt: set it below "
                f"max_context_tokens={self.max_context_tokens}."
            )
        return self

    def response_tokens(self, context_tokens: int) -> int:
        """Tokens that the next response may have."""
        return min(self.max_response_tokens, self.max_context_tokens - context_tokens)

    def before_action(self, turns: int, context_tokens: int) -> StopReason | None:
        """Whether an episode of `turns` turns with `context_tokens` in its context may take another one."""
        if turns >= self.max_turns:
            return StopReason.MAX_TURNS
        if context_tokens >= self.max_context_tokens:
            return StopReason.MAX_TOKENS
        return None

    def after_action(self, finish_reason: FinishReason, max_tokens: int, tool_calls: int) -> StopReason | None:
        """Whether an action goes on to the environment. `max_tokens` is what its response was allowed.

        `tool_calls` counts all of the episode, those of this action included.
        """
        if finish_reason is FinishReason.LENGTH:
            cut_by_context = max_tokens < self.max_response_tokens
            return StopReason.MAX_TOKENS if cut_by_context else StopReason.RESPONSE_LENGTH
        if self.max_tool_calls is not None and tool_calls > self.max_tool_calls:
            return StopReason.MAX_TOOL_CALLS
        return None

    def after_step(self, mistakes_in_a_row: int) -> StopReason | None:
        """Whether the episode goes on after so many turns in a row of which every tool call was malformed."""
        if self.max_corrective_turns is not None and mistakes_in_a_row > self.max_corrective_turns:
            return StopReason.MAX_MISTAKES
        return None
