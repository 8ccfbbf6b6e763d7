"""Whatever a rollout may produce comes back from the store bit for bit."""

import dataclasses
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent_rl.store import records
from agent_rl.store.opening import create_journal
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

TEXT = st.text(max_size=20)
FLOATS = st.floats()
SECONDS = st.floats(0, 1e6)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
JSON_OBJECTS = st.dictionaries(
    TEXT, st.recursive(SCALARS, lambda s: st.lists(s, max_size=3) | st.dictionaries(TEXT, s, max_size=3), max_leaves=6)
)
STATE_KEYS = st.recursive(SCALARS | st.binary(max_size=8), lambda s: st.lists(s, max_size=3).map(tuple), max_leaves=5)
INT32 = st.integers(-(2**31), 2**31 - 1)

CALLS = st.builds(ToolCall, TEXT, TEXT, JSON_OBJECTS, st.none() | TEXT)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    TEXT,
    st.lists(CALLS, max_size=2).map(tuple),
    st.none() | TEXT,
    st.none() | TEXT,
)
CONVERSATIONS = st.lists(MESSAGES, max_size=2).map(tuple)
TASKS = st.builds(Task, TEXT, CONVERSATIONS, JSON_OBJECTS, TEXT, st.lists(TEXT, max_size=2).map(tuple))
RESULTS = st.builds(ToolResult, CALLS, TEXT, st.none() | TEXT, SECONDS)
FAILURES = st.builds(Failure, TEXT, st.sampled_from(Owner), TEXT, TEXT, TEXT, st.booleans())
TURNS = st.builds(
    Turn,
    index=st.integers(0, 99),
    segment=st.integers(0, 9),
    start=st.integers(0, 999),
    end=st.integers(0, 999),
    action=MESSAGES,
    observations=CONVERSATIONS,
    reward=FLOATS,
    reward_terms=st.dictionaries(TEXT, FLOATS, max_size=2),
    tool_results=st.lists(RESULTS, max_size=2).map(tuple),
    finish_reason=st.sampled_from(FinishReason),
    state_key=STATE_KEYS,
    generation_s=SECONDS,
    step_s=SECONDS,
)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """Any ids, versions and float32 bit patterns (NaN payloads too) on sampled tokens; 0 and -1 elsewhere."""
    tokens = draw(st.integers(0, 40))
    mask_T = draw(arrays.arrays(np.bool_, tokens))
    bits_T = draw(arrays.arrays(np.uint32, tokens))
    versions_T = draw(arrays.arrays(np.int32, tokens, elements=INT32))
    return Segment(
        draw(arrays.arrays(np.int32, tokens, elements=INT32)),
        mask_T,
        np.where(mask_T, bits_T, np.uint32(0)).view(np.float32),
        np.where(mask_T, versions_T, np.int32(-1)),
    )


@st.composite
def groups(draw: st.DrawFn) -> Group:
    task = draw(TASKS)
    index = draw(st.integers(0, 2**31))
    trajectory = st.builds(
        Trajectory,
        task=st.just(task),
        group_index=st.just(index),
        member=st.just(0),
        seed=st.integers(0, 2**63 - 1),
        prompt=CONVERSATIONS,
        segments=st.lists(segments(), max_size=3).map(tuple),
        turns=st.lists(TURNS, max_size=2).map(tuple),
        stop_reason=st.sampled_from(StopReason),
        failure=st.none() | FAILURES,
        setup_s=SECONDS,
        duration_s=SECONDS,
        earlier_failures=st.lists(FAILURES, max_size=2).map(tuple),
        metrics=st.dictionaries(TEXT, FLOATS, max_size=2),
        tools=st.lists(JSON_OBJECTS, max_size=2).map(tuple),
    )
    members = draw(st.lists(trajectory, max_size=2))
    return Group(index, task, tuple(dataclasses.replace(t, member=i) for i, t in enumerate(members)))


def exact(value: object) -> object:
    """A value in which equality means: the same types, the same bits."""
    if dataclasses.is_dataclass(value):
        return type(value), [exact(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [exact(item) for item in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    return type(value), value


@given(st.lists(segments(), max_size=4))
def test_token_rows_survive_bit_for_bit(rows):
    assert exact(records.segments_from_blob(records.segments_to_blob(rows))) == exact(tuple(rows))


@settings(max_examples=50)
@given(groups())
def test_a_group_survives_the_journal_bit_for_bit(group):
    with TemporaryDirectory() as folder:
        run_dir = Path(folder)
        with create_journal(run_dir) as journal:
            journal.append_group(group)
        with create_journal(run_dir) as journal:
            loaded = journal.load_groups()
    assert exact(loaded) == exact({group.index: group})


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int]]:
    """For each life of a trainer: how many steps it makes before it is killed, and how often it checkpoints."""
    return draw(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4)), min_size=1, max_size=4))


@settings(max_examples=25)
@given(histories())
def test_any_sequence_of_kills_consumes_every_group_once_and_in_order(history):
    """The protocol of the train loop: journal, consume, checkpoint now and then, die, resume."""
    batch = 2
    saved_step, journal_steps = 0, 0
    with TemporaryDirectory() as folder:
        run_dir = Path(folder)
        for steps, every in history:
            with create_journal(run_dir) as journal:
                journal.rewind(saved_step)
                known = journal.load_groups(saved_step * batch)
                step = saved_step
                for _ in range(steps):
                    indices = [step * batch + i for i in range(batch)]
                    step += 1
                    for index in indices:
                        if index not in known:
                            journal.append_group(Group(index, Task(str(index), ()), ()))
                    journal.mark_consumed(step, indices)
                    if step % every == 0:
                        saved_step = step
                journal_steps = step
                consumed = journal.consumed()
        assert consumed == [(s + 1, (s * batch, s * batch + 1)) for s in range(journal_steps)]
