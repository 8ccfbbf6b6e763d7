"""A failed attempt, or an expert's actions, as text to be read by a model."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agent_rl.types import Message, Trajectory


def transcript(episode: Trajectory, chars: int) -> str:
    """What was said after the opening messages, up to the last `chars` characters of it."""
    messages = [m for turn in episode.turns if not turn.internal for m in (turn.action, *turn.observations)]
    return "\n".join(f"{message.role}: {_content(message)}" for message in messages)[-chars:]


def ending(episode: Trajectory, chars: int) -> str:
    """What the environment said last, up to the last `chars` characters of it."""
    said = [message.content for turn in episode.turns for message in turn.observations if message.content]
    return said[-1][-chars:] if said else ""


def actions_as_text(actions: Sequence[Message]) -> list[str]:
    """Each action in a line."""
    return [_content(action) for action in actions]


def _content(message: Message) -> str:
    calls = [f"{call.name}({json.dumps(dict(call.arguments))})" for call in message.tool_calls]
    return " ".join([*([message.content] if message.content else []), *calls])
