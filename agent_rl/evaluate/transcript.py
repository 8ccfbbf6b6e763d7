"""One episode as readable Markdown. Knows nothing of tokens."""

from __future__ import annotations

import json

from agent_rl.types import Message, Trajectory


def transcript(episode: Trajectory) -> str:
    """The prompt, every turn with its tool calls and observations, and how it ended."""
    parts = [f"# {episode.task.id} (member {episode.member})", *map(_message, episode.prompt)]
    for turn in episode.turns:
        parts.append(_message(turn.action))
        parts += map(_message, turn.observations)
    failure = f", failure of the {episode.failure.owner}: {episode.failure.message}" if episode.failure else ""
    parts.append(f"*reward {episode.reward:g}, {episode.stop_reason}, {len(episode.turns)} turns{failure}*")
    return "\n\n".join(parts) + "\n"


def _message(message: Message) -> str:
    lines = [f"**{message.role}**"]
    if message.reasoning_content:
        lines.append(_fenced(message.reasoning_content, "thinking"))
    if message.content:
        lines.append(_fenced(message.content))
    for call in message.tool_calls:
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        lines.append(
            _fenced(f"{call.name}({arguments})" if call.error is None else f"(malformed) {call.error}", "call")
        )
    return "\n".join(lines)


def _fenced(text: str, info: str = "") -> str:
    """A code block whose fence is longer than any run of backticks in the text, which is untrusted."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{info}\n{text}\n{fence}"
