from __future__ import annotations

from agent_rl.evaluate.transcript import transcript
from agent_rl.types import FinishReason, Message, StopReason, Task, ToolCall, Trajectory, Turn


def test_a_transcript_shows_every_message_call_and_the_end() -> None:
    call = ToolCall("c", "query", {"sql": "SELECT 1"})
    broken = ToolCall("d", "", {}, error="The call is not JSON.")
    action = Message("assistant", "the smallest price", (call, broken), reasoning_content="let me see")
    turn = Turn(0, 0, 0, 0, action, (Message("tool", "7", tool_call_id="c"),), 1.0, {}, (), FinishReason.STOP)
    episode = Trajectory(Task("sql/1", ()), 0, 2, 0, (Message("user", "What?"),), (), (turn,), StopReason.TERMINATED)
    text = transcript(episode)
    parts = ["# sql/1 (member 2)", "What?", "let me see", "the smallest price", 'query({"sql": "SELECT 1"})']
    parts += ["(malformed) The call is not JSON.", "7", "*reward 1, terminated, 1 turns*"]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)


def test_untrusted_text_cannot_close_its_block() -> None:
    hostile = "```\n# not a heading\n````"
    episode = Trajectory(Task("t", ()), 0, 0, 0, (Message("user", hostile),), (), (), StopReason.MAX_TURNS)
    assert f"`````\n{hostile}\n`````" in transcript(episode)
