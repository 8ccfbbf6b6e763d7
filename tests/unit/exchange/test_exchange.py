"""Every format: what it promises to keep comes back, and what others' tools demand holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import atif
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_rl.exchange import atif as ours
from agent_rl.exchange import chat, verifiers, verifiers_traces, verl
from agent_rl.exchange.conversation import RowError
from agent_rl.exchange.formats import read_groups, write_groups
from agent_rl.store.records import trajectory_to_json
from agent_rl.types import (
    Failure,
    FinishReason,
    Group,
    Message,
    Owner,
    Segment,
    StopReason,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
)

# --- episodes of every kind -----------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["", "\x00\u202e", "🙂\n<x>"])
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=64)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT, lambda v: st.lists(v, max_size=2), max_leaves=3
)
DATA = st.dictionaries(TEXT, VALUE, max_size=2)
NUMBERS = st.dictionaries(TEXT, NUMBER, max_size=2)
CALL = st.builds(ToolCall, st.sampled_from(["a", "b"]), st.sampled_from(["run", "look"]), DATA, st.none())
BROKEN = st.builds(ToolCall, st.just("c"), st.sampled_from(["", "run"]), st.just({}), TEXT)
PROMPT = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=2).map(tuple)
ACTION = st.builds(
    Message,
    st.just("assistant"),
    TEXT,
    st.lists(CALL | BROKEN, max_size=2).map(tuple),
    st.none(),
    st.none() | TEXT,
)
ANSWER = st.builds(Message, st.just("user"), TEXT) | st.builds(
    Message, st.just("tool"), TEXT, st.just(()), st.sampled_from(["a", "z"])
)
TOOLS = st.lists(st.builds(lambda *said: definition(*said), TEXT, DATA), max_size=2).map(tuple)
FAILURE = st.builds(Failure, TEXT, st.sampled_from(Owner), TEXT, TEXT, TEXT, st.booleans())
RESULT = st.builds(ToolResult, CALL, TEXT, st.none() | TEXT, NUMBER)
KEY = st.recursive(st.none() | st.integers() | TEXT | st.binary(max_size=3), lambda k: st.tuples(k, k), max_leaves=3)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """Any tokens; log-probs of any bits, but where nothing was sampled."""
    length = draw(st.integers(1, 6))
    mask_T = np.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)), np.bool_)
    bits = st.floats(width=32, allow_nan=True, allow_infinity=True)
    logprobs_T = np.array(draw(st.lists(bits, min_size=length, max_size=length)), np.float32)
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=length, max_size=length))
    versions = draw(st.lists(st.integers(0, 2**31 - 1), min_size=length, max_size=length))
    return Segment(
        np.array(ids, np.int32),
        mask_T,
        np.where(mask_T, logprobs_T, np.float32(0)),
        np.where(mask_T, versions, -1).astype(np.int32),
    )


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """Siblings with tokens, internal turns and failures."""
    prompt = draw(PROMPT)
    task = Task(draw(TEXT), prompt, draw(DATA), draw(TEXT), draw(st.lists(TEXT, max_size=2).map(tuple)))
    index = draw(st.integers(0, 2**40))
    return Group(index, task, tuple(draw(episodes(task, index, member)) for member in range(draw(st.integers(1, 3)))))


@st.composite
def episodes(draw: st.DrawFn, task: Task, index: int, member: int) -> Trajectory:
    parts = tuple(draw(st.lists(segments(), max_size=2)))
    turns = tuple(draw(turn(number, parts)) for number in range(draw(st.integers(0, 3))))
    failure = draw(st.none() | FAILURE)
    return Trajectory(
        task=task,
        group_index=index,
        member=member,
        seed=draw(st.integers(0, 2**62)),
        prompt=draw(PROMPT),
        segments=parts,
        turns=turns,
        stop_reason=StopReason.FAILURE if failure else draw(st.sampled_from(StopReason)),
        failure=failure,
        began_at=draw(st.sampled_from([0.0, 1.7e9])),
        setup_s=draw(NUMBER),
        duration_s=1.5,
        earlier_failures=tuple(draw(st.lists(FAILURE, max_size=2))),
        metrics=draw(NUMBERS),
        tools=draw(TOOLS),
    )


@st.composite
def turn(draw: st.DrawFn, number: int, parts: tuple[Segment, ...]) -> Turn:
    segment = draw(st.integers(0, len(parts) - 1)) if parts else 0
    internal = draw(st.booleans())
    end = draw(st.integers(0, len(parts[segment].token_ids_T))) if parts else 0
    return Turn(
        index=number,
        segment=segment,
        start=draw(st.integers(0, end)),
        end=end,
        action=draw(ACTION),
        observations=() if internal else tuple(draw(st.lists(ANSWER, max_size=2))),  # nobody sees it
        reward=draw(st.integers(-4, 4)) / 4,
        reward_terms=draw(NUMBERS),
        tool_results=tuple(draw(st.lists(RESULT, max_size=1))),
        finish_reason=draw(st.sampled_from(FinishReason)),
        state_key=draw(KEY),
        internal=internal,
        tag=draw(TEXT),
    )


def definition(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "Does it.", "parameters": parameters}}


def everything() -> Group:
    """Siblings with all that can be lost: bits of log-probs, masks, versions, a failure, an internal turn."""
    call = ToolCall("a", "run", {"x": [1, None]})
    task = Task("t", (Message("system", "s"), Message("user", "u")), {"k": [1]}, "env", ("tag",))
    words = np.array([0.0, -0.25, -0.5, 0.0, np.nan, -np.inf], np.float32)
    words_T = np.where([False, True, True, False, True, True], words, np.float32(0))
    segment = Segment(np.arange(6, dtype=np.int32), words_T != 0, words_T, np.array([-1, 3, 3, -1, 4, 4], np.int32))
    first = Turn(
        0, 0, 1, 3, Message("assistant", "hm", (call,), None, "why"), (Message("tool", "4", (), "a"),), 0.25,
        {"part": 0.25}, (ToolResult(call, "4", None, 0.5),), FinishReason.STOP, ("at", b"\x00", 1), tag="look",
    )  # fmt: skip
    inside = Turn(1, 0, 3, 4, Message("assistant", "so far"), (), 0.5, {}, (), FinishReason.STOP, internal=True)
    broken = ToolCall("c", "", {}, "no name")
    last = Turn(
        2, 0, 4, 6, Message("assistant", "", (broken,)), (Message("user", "no"),), -1.0, {}, (), FinishReason.LENGTH
    )
    won = Trajectory(
        task, 2**40, 0, 2**62, task.prompt, (segment,), (first, inside, last), StopReason.TERMINATED, None, 1.7e9, 0.5,
        1.5, (), {"m": 1.0}, (definition("run", {"type": "object", "properties": {"x": {}}}),),
    )  # fmt: skip
    failure = Failure("crash", Owner.PROVIDER, "step", "gone", "Traceback", True)
    return Group(
        2**40,
        task,
        (
            won,
            dataclasses.replace(
                won, member=1, stop_reason=StopReason.FAILURE, failure=failure, earlier_failures=(failure,)
            ),
        ),
    )


PROPERTY = settings(max_examples=6)


# --- what comes back ------------------------------------------------------------------------------------------------


def bits(segment: Segment) -> list[tuple[str, bytes]]:
    rows = (getattr(segment, field.name) for field in dataclasses.fields(segment))
    return [(row.dtype.name, row.tobytes()) for row in rows]


def test_parquet_loses_nothing(tmp_path_factory: pytest.TempPathFactory):
    @PROPERTY
    @given(st.lists(groups(), max_size=2, unique_by=lambda group: group.index))
    @example([everything()])
    def check(written: list[Group]) -> None:
        path = tmp_path_factory.mktemp("parquet") / "run.parquet"
        write_groups(written, path, "parquet")
        again = list(read_groups(path, "parquet"))
        assert [(group.index, group.task) for group in again] == [(group.index, group.task) for group in written]
        for before, after in zip(written, again, strict=True):
            for old, new in zip(before.trajectories, after.trajectories, strict=True):
                assert trajectory_to_json(new) == trajectory_to_json(old)
                assert [turn.state_key for turn in new.turns] == [turn.state_key for turn in old.turns]
                assert list(map(bits, new.segments)) == list(map(bits, old.segments))
                assert new.failures == old.failures
                assert new.tools == old.tools

    check()


def test_the_columns_of_parquet_repeat_the_record(tmp_path: Path):
    import pyarrow.parquet as pq

    write_groups([everything()], tmp_path / "run.parquet", "parquet")
    won, failed = pq.read_table(tmp_path / "run.parquet").to_pylist()
    names = ["group", "member", "task_id", "environment", "reward", "stop_reason", "failure_owner", "turns"]
    assert [won[name] for name in names] == [2**40, 0, "t", "env", -0.25, "terminated", None, 3]
    assert [failed[name] for name in names] == [2**40, 1, "t", "env", -0.25, "failure", str(Owner.PROVIDER), 3]
    assert won["sampled_tokens"] == 4
    assert won["response_mask"] == [[False, True, True, False, True, True]]
    assert won["weight_versions"] == [[-1, 3, 3, -1, 4, 4]]


def shown(episode: Trajectory) -> Any:
    """What a format of messages keeps: who said what, the rewards of turns, and how it ended."""
    turns = [turn for turn in episode.turns if not turn.internal]
    rewards, carried = [], 0.0
    for one in episode.turns:
        carried += one.reward
        if not one.internal:
            rewards.append(carried)
            carried = 0.0
    said = [(turn.action, turn.observations) for turn in turns]
    failure = episode.failure and (episode.failure.kind, episode.failure.owner, episode.failure.message)
    end = rewards, episode.stop_reason, failure, episode.metrics
    return episode.member, episode.seed, episode.prompt, said, *end, episode.tools


def through_json(rows: Any) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(row)) for row in rows]


@PROPERTY
@given(groups())
@example(everything())
def test_a_chat_keeps_every_message_reward_and_end(group: Group):
    rows = through_json(chat.to_rows(group))
    assert [row["reward"] for row in rows] == [episode.reward for episode in group.trajectories]
    (again,) = chat.from_rows(rows)
    assert (again.index, again.task) == (group.index, group.task)
    assert list(map(shown, again.trajectories)) == list(map(shown, group.trajectories))


@PROPERTY
@given(groups())
@example(everything())
def test_rows_of_verifiers_keep_messages_and_the_reward_of_the_episode(group: Group):
    rows = through_json(verifiers.to_rows(group))
    (again,) = verifiers.from_rows(rows)
    assert (again.index, again.task) == (group.index, group.task)
    for old, new in zip(group.trajectories, again.trajectories, strict=True):
        assert shown(new)[:4] == shown(old)[:4]
        assert shown(new)[5:] == shown(old)[5:]
        if new.turns:
            assert new.reward == old.reward


@PROPERTY
@given(groups())
@example(everything())
def test_traces_for_verifiers_come_back(group: Group):
    rows = through_json(verifiers_traces.to_rows(group))
    (again,) = verifiers_traces.from_rows(rows)
    assert (again.index, again.task) == (group.index, group.task)
    assert list(map(shown, again.trajectories)) == list(map(shown, group.trajectories))
    failures = [[(failure.kind, failure.message) for failure in episode.failures] for episode in group.trajectories]
    assert [[(f.kind, f.message) for f in episode.failures] for episode in again.trajectories] == failures
    traces = [trace for row in rows for trace in row["traces"]]
    assert [[(error["type"], error["message"]) for error in trace["errors"]] for trace in traces] == failures
    failed = [episode.stop_reason is StopReason.FAILURE for episode in group.trajectories]
    assert [trace["stop_condition"] == "error" for trace in traces] == failed


@PROPERTY
@given(groups())
@example(everything())
def test_atif_documents_are_valid_and_come_back(group: Group):
    """By the pydantic models of the format, which forbid fields that they do not know."""
    rows = through_json(ours.to_rows(group))
    for row, episode in zip(rows, group.trajectories, strict=True):
        document = atif.Trajectory.model_validate(row)
        assert document.schema_version == "ATIF-v1.7"
        assert tuple(document.agent.tool_definitions or ()) == episode.tools
        assert document.final_metrics is not None
        tokens = [step.metrics for step in document.steps if step.metrics is not None]
        assert document.final_metrics.total_completion_tokens == sum(turn.end - turn.start for turn in episode.turns)
        assert all(len(m.completion_token_ids or []) == len(m.logprobs or []) == m.completion_tokens for m in tokens)
    (again,) = ours.from_rows(rows)
    assert (again.index, again.task) == (group.index, group.task)
    for old, new in zip(group.trajectories, again.trajectories, strict=True):
        assert shown(new)[4:] == shown(old)[4:]
        assert new.prompt == old.prompt
        for before, after in zip((t for t in old.turns if not t.internal), new.turns, strict=True):
            assert after.action == before.action
            assert sorted(map(repr, after.observations)) == sorted(map(repr, before.observations))


def test_atif_has_the_tokens_of_each_turn():
    document = next(ours.to_rows(everything()))
    metrics = [step["metrics"] for step in document["steps"] if "metrics" in step]
    assert [one["completion_token_ids"] for one in metrics] == [[1, 2], [3], [4, 5]]
    assert [one["prompt_tokens"] for one in metrics] == [1, 3, 4]
    assert metrics[0]["logprobs"] == [-0.25, -0.5]
    assert [one["extra"]["weight_versions"] for one in metrics] == [[3, 3], [-1], [4, 4]]


# --- files of others ------------------------------------------------------------------------------------------------


def test_definitions_of_tools_are_where_each_format_has_them():
    group = everything()
    flat = {"name": "run", "description": "Does it.", "parameters": {"type": "object", "properties": {"x": {}}}}
    (tool,) = group.trajectories[0].tools
    assert next(chat.to_rows(group))["tools"] == [tool] == [{"type": "function", "function": flat}]
    assert next(ours.to_rows(group))["agent"]["tool_definitions"] == [tool]
    (row, _) = verifiers.to_rows(group)
    assert row["tool_defs"] == [flat]
    (again,) = verifiers.from_rows([{**row, "tool_defs": [{**flat, "strict": None}]}])  # as verifiers dumps them
    assert again.trajectories[0].tools == (tool,)
    bare = dataclasses.replace(group, trajectories=(dataclasses.replace(group.trajectories[0], tools=()),))
    assert "tools" not in next(chat.to_rows(bare))
    for wrong in ({"name": "x"}, ["x"]):
        with pytest.raises(RowError, match="tools must be a list of definitions"):
            list(chat.from_rows([{"messages": [], "tools": wrong}]))


def test_a_chat_of_somebody_elses():
    row = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}], "reward": 1}
    first, second = chat.from_rows([row, {"messages": row["messages"]}])
    assert (first.index, second.index) == (0, 1)
    (episode,) = first.trajectories
    assert (episode.reward, episode.stop_reason, episode.segments) == (1.0, StopReason.TERMINATED, ())
    assert [message.content for message in (*episode.prompt, episode.turns[0].action)] == ["2+2?", "4"]


def test_rows_that_verifiers_wrote():
    """As `state_to_output` of version 0.3.1 makes them."""
    call = '{"id": "c1", "name": "add", "arguments": "{\\"x\\": 2}"}'
    completion = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
        {"role": "assistant", "content": "4"},
    ]
    said = {"prompt": [{"role": "user", "content": "2+2?"}], "completion": completion, "timing": {"start_time": 1.7e9}}
    base = {"example_id": 7, "answer": "4", "info": '{"level": 2}', "metrics": {"correct": 1.0}, "correct": 1.0}
    error = {"error": "ModelError", "message": "no answer", "error_chain_repr": "...", "error_chain_str": "..."}
    nothing = {"prompt": None, "completion": None, "reward": 0.0, "error": error, "stop_condition": "has_error"}
    rows = [{**base, **said, "reward": 1.0}, {**base, **said, "reward": 0.0, "is_truncated": True}, {**base, **nothing}]
    (group,) = verifiers.from_rows(rows)
    assert group.task.data == {"answer": "4", "info": {"level": 2}}
    first, cut, failed = group.trajectories
    assert first.turns[0].action.tool_calls == (ToolCall("c1", "add", {"x": 2}),)
    assert [episode.member for episode in group.trajectories] == [0, 1, 2]
    assert [episode.reward for episode in group.trajectories] == [1.0, 0.0, 0.0]
    assert (first.terminated, cut.truncated, failed.turns) == (True, True, ())
    assert failed.failure == Failure("ModelError", Owner.ENVIRONMENT, "episode", "no answer")


def test_rows_that_verifiers_wrote_before():
    """With the name of the task, calls as OpenAI has them, and an error as a text."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    said = {"prompt": [], "completion": [{"role": "assistant", "content": "", "tool_calls": [json.dumps(call)]}]}
    (group,) = verifiers.from_rows([{"example_id": 7, "task": "gsm8k", **said, "reward": 1.0, "error": "a bug"}])
    (episode,) = group.trajectories
    assert (group.task.id, group.task.environment) == ("gsm8k-7", "gsm8k")
    assert episode.turns[0].action.tool_calls == (ToolCall("c1", "add", {}),)
    assert episode.failure == Failure("error", Owner.ENVIRONMENT, "episode", "a bug")


def test_rows_for_verifiers_have_its_columns():
    episode = dataclasses.replace(
        sums().trajectories[0],
        stop_reason=StopReason.FAILURE,
        failure=Failure("crash", Owner.ENVIRONMENT, "step", "gone"),
        began_at=100.0,
        setup_s=1.0,
        duration_s=9.0,
        turns=tuple(
            dataclasses.replace(turn, began_s=2.0, generation_s=3.0, step_s=0.5)
            for turn in sums().trajectories[0].turns
        ),
    )
    (row,) = verifiers.to_rows(dataclasses.replace(sums(), trajectories=(episode,)))
    (call,) = row["completion"][0].pop("tool_calls")
    assert row["completion"][0] == {"role": "assistant", "content": "Hm."}
    assert json.loads(call) == {"id": "a", "name": "add", "arguments": '{"x": 2}'}
    assert row["error"].keys() == {"error", "message", "error_chain_repr", "error_chain_str"}
    timing = row["timing"]
    assert timing["env"] == {"spans": [{"start": 105.0, "end": 105.5, "duration": 0.5}], "duration": 0.5}
    assert (timing["model"]["duration"], timing["total"], timing["overhead"]) == (3.0, 9.0, 4.5)
    assert (row["is_completed"], "task" in row, "answer" in row) == (True, False, False)
    cut = dataclasses.replace(episode, stop_reason=StopReason.MAX_TURNS, failure=None)
    (row,) = verifiers.to_rows(dataclasses.replace(sums(), trajectories=(cut,)))
    assert (row["is_truncated"], row["error"]) == (True, None)


def test_an_atif_document_of_another_agent():
    """The example of the specification's package."""
    call = {"tool_call_id": "c1", "function_name": "now", "arguments": {}}
    result = {"source_call_id": "c1", "content": "12:00"}
    steps = [
        {"step_id": 1, "source": "user", "message": "What time is it?"},
        {
            "step_id": 2,
            "source": "agent",
            "message": "Let me check.",
            "tool_calls": [call],
            "observation": {"results": [result]},
            "metrics": {"prompt_tokens": 120, "completion_tokens": 18},
        },
    ]
    row = {"schema_version": "ATIF-v1.4", "agent": {"name": "x", "version": "1"}, "steps": steps}
    atif.Trajectory.model_validate(row)
    (group,) = ours.from_rows([row])
    (one,) = group.trajectories[0].turns
    assert one.action.tool_calls == (ToolCall("c1", "now", {}),)
    assert one.observations == (Message("tool", "12:00", tool_call_id="c1"),)


# --- verl -----------------------------------------------------------------------------------------------------------


def sums() -> Group:
    task = Task("t1", (Message("user", "2+2?"),), {"answer": 4}, "sums", ("easy", "plus"))
    call = ToolCall("a", "add", {"x": 2})
    said = Message("assistant", "Hm.", (call,)), (Message("tool", "4", tool_call_id="a"),)
    one = Turn(0, 0, 0, 0, *said, 1.0, {}, (), FinishReason.STOP)
    return Group(3, task, (Trajectory(task, 3, 0, 0, task.prompt, (), (one,), StopReason.TERMINATED),))


def test_verls_tasks_are_what_its_dataset_reads(tmp_path: Path):
    import datasets

    path = tmp_path / "train.parquet"
    write_groups([sums()], path, "verl")
    (row,) = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert row["prompt"] == [{"role": "user", "content": "2+2?"}]
    assert (row["data_source"], row["ability"]) == ("sums", "easy,plus")
    assert row["reward_model"] == {"style": "rule", "ground_truth": '{"answer": 4}'}
    assert row["extra_info"] == {"index": 3, "id": "t1", "data": '{"answer": 4}'}


def test_verls_dumps_have_its_columns():
    (row,) = verl.rollout_rows(sums())
    assert list(row)[:5] == ["input", "output", "gts", "score", "step"]
    assert row["input"] == "user\n2+2?"
    assert row["output"].startswith('assistant\nHm.\n{"name": "add"')
    assert row["output"].endswith("tool\n4")
