"""Files of verifiers 0.4, written as its `write_episode` does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_rl.errors import UserError
from agent_rl.exchange import verifiers_traces
from agent_rl.exchange.formats import read_groups
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import Message, Owner, StopReason, ToolCall


def traced(key: str, **changes: Any) -> dict[str, Any]:
    """A line of `traces.jsonl` as `write_episode` of version 0.4 makes it: null fields are left out."""
    call = {"id": "c1", "name": "add", "arguments": '{"x": 2}'}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "An example that nobody sampled."},
        {"role": "user", "content": [{"type": "text", "text": "2+2?"}]},
        {"role": "assistant", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "4", "name": "add"},
        {"role": "assistant", "content": "another branch"},
        {"role": "assistant", "content": "4"},
    ]
    parents = [None, 0, 1, 2, 3, 4, 4]
    nodes = [
        {"message": message, "sampled": place in (3, 5, 6), "timestamp": 5.0, "token_ids": [], "mask": []}
        | ({} if parent is None else {"parent": parent})
        for place, (message, parent) in enumerate(zip(messages, parents, strict=True))
    ]
    trace = {
        "version": 1,
        "id": "t",
        "task": {"type": "Gsm8k", "data": {"idx": 7, "answer": "4"}, "key": key},
        "agent": {"config": {}, "name": "solver", "trainable": True},
        "tools": [{"name": "add", "description": "Adds.", "parameters": {"type": "object"}}],
        "nodes": nodes,
        "calls": [{"node": 6, "finish_reason": "stop"}, {"error": {"type": "X", "message": ""}}],
        "rewards": {"right": {"score": 0.5, "weight": 2.0}, "never": None},
        "metrics": {"m": 3.0, "none": None},
        "ok": True,
        "stop_condition": "agent_completed",
        "errors": [],
        "timing": {"start": 100.0, "setup": {"start": 100.0, "end": 101.5}, "scoring": {"start": 108.0, "end": 109.0}},
    }
    return {"id": "e", "env": {"id": "gsm8k-v1"}, "task": trace["task"], "ok": True, "traces": [trace | changes]}


def test_traces_that_verifiers_wrote():
    first, second = verifiers_traces.from_rows([traced("a"), traced("b"), traced("a", stop_condition="max_turns")])
    assert [len(group.trajectories) for group in (first, second)] == [2, 1]
    one, cut = first.trajectories
    assert (one.task.id, one.task.environment, one.task.data["answer"]) == ("Gsm8k-7", "gsm8k-v1", "4")
    assert [message.content for message in one.prompt] == ["Be brief.", "An example that nobody sampled.", "2+2?"]
    assert [turn.action.content for turn in one.turns] == ["", "4"], "the path to the last message"
    assert one.turns[0].action.tool_calls == (ToolCall("c1", "add", {"x": 2}),)
    assert one.turns[0].action.reasoning_content == "hm"
    assert one.turns[0].observations == (Message("tool", "4", tool_call_id="c1"),)
    assert (one.reward, one.turns[1].reward, one.turns[1].reward_terms) == (1.0, 1.0, {"right": 0.5})
    assert (one.metrics, one.stop_reason, cut.stop_reason) == ({"m": 3.0}, StopReason.TERMINATED, StopReason.MAX_TURNS)
    assert (one.began_at, one.setup_s, one.duration_s, cut.member) == (100.0, 1.5, 9.0, 1)
    parameters = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    assert one.tools == ({"type": "function", "function": parameters},)
    assert cut.task is one.task


def test_traces_of_verifiers_that_failed():
    errors = [{"type": "ProviderError", "message": "busy"}, {"type": "TaskError", "message": "no", "traceback": "T"}]
    healed, failed, early = traced("a", errors=errors[:1]), traced("b", errors=errors, ok=False), traced("c")
    early |= {"traces": [], "errors": errors[1:], "ok": False}
    long = traced("d", calls=[{"finish_reason": "length"}])
    found = [group.trajectories[0] for group in verifiers_traces.from_rows([healed, failed, early, long])]
    assert [[failure.owner for failure in episode.failures] for episode in found] == [
        [Owner.PROVIDER], [Owner.PROVIDER, Owner.ENVIRONMENT], [Owner.ENVIRONMENT], [],
    ]  # fmt: skip
    assert [episode.failure and episode.failure.message for episode in found] == [None, "no", "no", None]
    assert (found[2].turns, found[1].stop_reason) == ((), StopReason.FAILURE)
    assert found[3].stop_reason is StopReason.RESPONSE_LENGTH


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "a trace has version 2, not 1"),
        ({"nodes": [{"message": {"role": "user", "content": ""}, "parent": 0}]}, "the parent of message 0 is 0"),
        ({"nodes": [{"message": {"role": "user", "content": [{"type": "image_url"}]}}]}, "only text is supported"),
    ],
)
def test_a_bad_trace_is_named_with_its_line(tmp_path: Path, changes: dict[str, Any], message: str):
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(traced("a")) + "\n" + json.dumps(traced("b", **changes)) + "\n")
    with pytest.raises(UserError, match=f"traces.jsonl, line 2: .*{message}"):
        list(read_groups(path, "verifiers_traces"))


def test_the_tokens_of_messages_one_after_the_other_are_the_episodes():
    group = make_group(make_trajectory([Played(), Played(reward=1.0)]))
    (episode,) = group.trajectories
    (row,) = episode.segments
    (line,) = verifiers_traces.to_rows(group)
    (trace,) = line["traces"]
    length = episode.turns[-1].end
    nodes = trace["nodes"]
    assert [node["message"]["role"] for node in nodes if node.get("token_ids")] == ["assistant", "assistant"]
    ids, mask = ([value for node in nodes for value in node.get(name, [])] for name in ("token_ids", "mask"))
    assert ids == row.token_ids_T[:length].tolist()
    assert mask == row.response_mask_T[:length].tolist()
    logprobs = [value for node in nodes for value in node.get("logprobs", [])]
    assert logprobs == row.rollout_logprobs_T[row.response_mask_T].tolist()
    assert [call["usage"]["completion_tokens"] for call in trace["calls"]] == [t.end - t.start for t in episode.turns]
    assert (line["ok"], trace["stop_condition"], trace["rewards"]["reward"]["score"]) == (True, "agent_completed", 1.0)


def test_tokens_of_a_rewritten_history_are_left_out():
    played = make_trajectory([Played(), Played(reward=1.0)])
    (row,) = played.segments
    rewritten = replace(played, segments=(row, row), turns=(played.turns[0], replace(played.turns[1], segment=1)))
    (line,) = verifiers_traces.to_rows(make_group(rewritten))
    assert all("token_ids" not in node for node in line["traces"][0]["nodes"])


def test_the_name_of_the_format_is_said_where_another_was_asked_for(tmp_path: Path):
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(traced("a")) + "\n")
    with pytest.raises(UserError, match=r"line 1: .*the format is verifiers_traces"):
        list(read_groups(path, "verifiers"))
