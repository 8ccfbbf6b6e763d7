"""An agent that says what a stored episode said, turn by turn, whatever it is answered."""

from __future__ import annotations

from collections.abc import Sequence

from agent_rl.errors import ProviderFailure
from agent_rl.rollout.agent import Action
from agent_rl.tool import Tool
from agent_rl.types import Message, Segment, StopReason, Trajectory

END_OF_RECORD = "end_of_record"


class RecordedAgent:
    """Its context is as long as it was, so that the same limits end the episode.

    Past the record it fails with kind `END_OF_RECORD`: the environment went on where it had ended, or a clock or a
    failure had ended the episode.
    """

    def __init__(self, episode: Trajectory, max_context_tokens: int) -> None:
        self._episode = episode
        self._turns = iter(episode.turns)
        self._next = next(self._turns, None)
        self._full = max_context_tokens

    @property
    def context_tokens(self) -> int:
        """Before the turn that comes next. After the last one only this is known: whether it was too long."""
        if self._next is not None:
            return self._next.start
        return self._full if self._episode.stop_reason is StopReason.MAX_TOKENS else 0

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        """Nothing is encoded."""

    async def act(self, turn: int, max_tokens: int) -> Action:
        """The next action of the record."""
        recorded = self._next
        if recorded is None:
            raise ProviderFailure("the record ends here", kind=END_OF_RECORD, stage="generation", retryable=False)
        self._next = next(self._turns, None)
        span = recorded.segment, recorded.start, recorded.end
        return Action(recorded.action, recorded.finish_reason, *span, internal=recorded.internal)

    def observe(self, messages: Sequence[Message]) -> None:
        """What is answered changes nothing."""

    def segments(self) -> tuple[Segment, ...]:
        """The stored rows."""
        return self._episode.segments

    async def close(self) -> None:
        """Nothing is held."""
