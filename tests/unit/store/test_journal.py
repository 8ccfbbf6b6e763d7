import dataclasses
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from sqlalchemy import select, text

from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.registry import environment_from_json
from agent_rl.store import schema, trained_tokens
from agent_rl.store.checkpoint import Checkpoint
from agent_rl.store.opening import create_journal, open_journal
from agent_rl.store.trained_tokens import TrainedTokens
from agent_rl.testing.environments import GuessNumber, GuessNumberConfig
from agent_rl.types import JSON, Group, ToolCall, ToolResult
from agent_rl.wrapper import EnvironmentWrapper

WRITER = Path(__file__).with_name("append_forever.py")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def journal(run_dir, store):
    with create_journal(run_dir, store=store) as journal:
        yield journal


def rows(journal, table):
    return [row._asdict() for row in journal.rows(select(table).order_by(*table.primary_key))]


def test_groups_come_back_from_an_index_on_in_order(journal, make_group):
    for index in (4, 0, 2, 7):
        journal.append_group(make_group(index))
    assert list(journal.load_groups()) == [0, 2, 4, 7]
    later = journal.load_groups(from_index=3)
    assert list(later) == [4, 7]
    assert [t.member for t in later[7].trajectories] == [0, 1, 2]
    assert [len(g.valid) for g in later.values()] == [2, 2]
    for old, new in zip(make_group(7).trajectories, later[7].trajectories, strict=True):
        assert new.task is later[7].task
        for a, b in zip(old.segments, new.segments, strict=True):
            np.testing.assert_array_equal(a.rollout_logprobs_T.view(np.int32), b.rollout_logprobs_T.view(np.int32))


def test_an_index_that_is_there_keeps_its_first_group(journal, make_group):
    journal.append_group(make_group(1, members=2))
    journal.append_group(make_group(1, members=3))
    assert len(journal.load_groups()[1].trajectories) == 2


def shown(group: Group, *tools: tuple[JSON, ...]) -> Group:
    """The group, its members shown these tools in turn."""
    members = zip(group.trajectories, tools, strict=True)
    return replace(group, trajectories=tuple(replace(episode, tools=given) for episode, given in members))


def test_a_set_of_tools_is_stored_once_for_all_that_were_shown_it(journal, make_group):
    look, go = ({"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look", "go"))
    journal.append_group(shown(make_group(0), (look,), (look,), ()))
    journal.append_group(shown(make_group(1), (look,), (look, go), (look,)))
    assert len(rows(journal, schema.tool_sets)) == 2
    assert [row["tools"] is None for row in rows(journal, schema.records)] == [False, False, True, *[False] * 3]
    found = journal.load_groups()
    assert [t.tools for t in found[0].trajectories] == [(look,), (look,), ()]
    assert [t.tools for t in journal.read_groups([1])[1].trajectories] == [(look,), (look, go), (look,)]


def test_the_environment_is_written_once_for_a_run(tmp_path, store):
    spec = EnvironmentSpec(GuessNumber, GuessNumberConfig(high=20)).wrapped(EnvironmentWrapper)
    with create_journal(tmp_path, store=store, environment=spec):
        pass
    other = EnvironmentSpec(GuessNumber, GuessNumberConfig(high=9))
    for opening in (open_journal, partial(create_journal, environment=other)):
        with opening(tmp_path) as again:
            assert environment_from_json(again.environment()) == spec
    with create_journal(tmp_path / "other") as unknown:
        assert unknown.environment() is None


def test_a_group_is_written_whole_or_not_at_all(journal, make_group):
    group = make_group(1)
    twice = dataclasses.replace(group, trajectories=(*group.trajectories, group.trajectories[0]))
    with pytest.raises(Exception, match=r"(?i)unique"):
        journal.append_group(twice)
    assert journal.load_groups() == {}
    journal.append_group(group)
    assert list(journal.load_groups()) == [1]


def test_an_episode_of_another_task_is_refused(journal, make_group):
    mixed = dataclasses.replace(make_group(1), trajectories=make_group(2).trajectories)
    with pytest.raises(ValueError, match="episode of task 'sql-2', not 'sql-1'"):
        journal.append_group(mixed)


def test_columns_summarise_the_record(journal, make_group):
    group = make_group(3)
    nan = dataclasses.replace(group.trajectories[2].turns[0], reward=float("nan"))
    broken = dataclasses.replace(group.trajectories[2], turns=(nan,))
    journal.append_group(dataclasses.replace(group, trajectories=(*group.trajectories[:2], broken)))
    _, failed, not_finite = rows(journal, schema.trajectories)
    failed.pop("duration_s")
    assert failed == {
        "run": journal.run,
        "group_index": 3,
        "member": 1,
        "task_id": "sql-3",
        "environment": "sql",
        "reward": pytest.approx(0.2),
        "stop_reason": "failure",
        "failure_owner": "sandbox",
        "failure_kind": "timeout",
        "turns": 2,
        "tool_calls": 4,
        "tool_errors": 2,
        "segments": 2,
        "tokens": 128,
        "sampled_tokens": 64,
        "attempts": 2,
        "began_at": 0.0,
        "setup_s": 0.25,
        "generation_s": 0.0,
        "step_s": 1.0,
    }
    assert not_finite["reward"] is None
    assert rows(journal, schema.groups)[0]["task_id"] == "sql-3"


def test_turns_tool_calls_and_failures_have_rows_of_their_own(journal, make_group):
    journal.append_group(make_group(3))
    key = {"run": journal.run, "group_index": 3, "member": 1}
    turns = [row for row in rows(journal, schema.turns) if row["member"] == 1]
    assert turns[1] == {
        **key,
        "index": 1,
        "prompt_tokens": 1,
        "sampled_tokens": 1,
        "reward": 0.1,
        "finish_reason": "stop",
        "tag": "",
        "began_s": 0.0,
        "generation_s": 0.0,
        "step_s": 0.5,
    }
    calls = [row for row in rows(journal, schema.tool_calls) if row["member"] == 1]
    assert [(row["turn"], row["position"], row["error"], row["duration_s"]) for row in calls] == [
        (0, 0, "no such table: orders", 0.002),
        (0, 1, None, 0.001),
        (1, 0, "no such table: orders", 0.002),
        (1, 1, None, 0.001),
    ]
    assert {row["name"] for row in calls} == {"run_sql"}
    earlier = {"owner": "sandbox", "kind": "crash", "stage": "setup"}
    failure = {"attempt": 2, "owner": "sandbox", "kind": "timeout", "stage": "step", "message": "took too long"}
    assert rows(journal, schema.failures) == [
        {**key, **earlier, "attempt": 1, "message": "attempt 1"},
        {**key, **failure},
        {**key, **earlier, "member": 2, "attempt": 1, "message": "attempt 1"},
        {**key, **earlier, "member": 2, "attempt": 2, "message": "attempt 2"},
    ]


def test_columns_hold_any_name_that_a_model_may_call(journal, make_group):
    group = make_group(0, members=1)
    call = ToolCall("1", "x\x00\ud800" + 10_000 * "y", {})
    turn = dataclasses.replace(group.trajectories[0].turns[0], tool_results=(ToolResult(call, "", "e\x00", 0.0),))
    episode = dataclasses.replace(group.trajectories[0], turns=(turn,))
    journal.append_group(dataclasses.replace(group, trajectories=(episode,)))
    [row] = rows(journal, schema.tool_calls)
    assert row["name"].startswith("x\\x00\\ud800yyy")
    assert len(row["name"]) < 600
    assert journal.load_groups()[0].trajectories[0].turns[0].tool_results[0].call.name == call.name


def test_what_the_trainer_saw_comes_back_and_is_forgotten_by_rewind(journal, make_group):
    journal.append_group(make_group(0))
    logprobs_R = np.array([-0.1, np.nan, -3.0], np.float32)
    advantages_R, entropies_R = np.array([0.5, 0.5, -1 / 3], np.float32), np.array([0.25, np.nan, 1.5], np.float32)
    seen = [
        TrainedTokens(0, member, 1, step, logprobs_R * step, advantages_R, entropies_R)
        for step in (1, 2)
        for member in (2, 0)
    ]
    journal.add_trained_tokens(1, seen[:2])
    journal.add_trained_tokens(2, seen[2:])
    journal.add_trained_tokens(2, seen[2:])
    found = journal.trained_tokens(0)
    assert [(one.member, one.segment, one.step) for one in found] == [(0, 1, 1), (0, 1, 2), (2, 1, 1), (2, 1, 2)]
    np.testing.assert_array_equal(found[1].logprobs_R, logprobs_R * 2)
    np.testing.assert_array_equal(found[1].advantages_R, advantages_R)
    np.testing.assert_array_equal(found[1].entropies_R, entropies_R)
    journal.rewind(1)
    assert [one.step for one in journal.trained_tokens(0)] == [1, 1]
    assert journal.trained_tokens(1) == []


def test_what_the_trainer_saw_takes_at_most_10_bytes_per_token():
    rng = np.random.default_rng(0)
    logprobs_R = -rng.exponential(size=4096).astype(np.float32)
    for advantages_R, limit in ((np.full(4096, 0.3, np.float32), 6), (rng.normal(size=4096).astype(np.float32), 10)):
        seen = TrainedTokens(0, 0, 0, 1, logprobs_R, advantages_R, np.abs(logprobs_R))
        assert len(trained_tokens.to_blob(seen)) <= limit * 4096


def test_checkpoints_are_indexed_as_they_are(journal, tmp_path):
    def checkpoint(step):
        return Checkpoint(tmp_path / "checkpoints" / f"step-{step:08d}", step, 2 * step, step, 0)

    journal.index_checkpoints([checkpoint(1), checkpoint(2)])
    saved_at = rows(journal, schema.checkpoints)[1].pop("saved_at")
    journal.index_checkpoints([checkpoint(2), checkpoint(3)])
    second, third = rows(journal, schema.checkpoints)
    assert second["saved_at"] == saved_at
    assert (third["step"], third["path"], third["next_group_index"]) == (3, "checkpoints/step-00000003", 6)


def test_consumption_keeps_the_order_of_the_batch(journal, make_group):
    for index in range(6):
        journal.append_group(make_group(index, members=1))
    journal.mark_consumed(2, [5, 3])
    journal.mark_consumed(1, [1, 0, 2])
    assert journal.consumed() == [(1, (1, 0, 2)), (2, (5, 3))]
    journal.mark_consumed(2, [3, 5])
    assert journal.consumed() == [(1, (1, 0, 2)), (2, (3, 5))]


def test_a_group_cannot_be_consumed_before_it_is_stored(journal, make_group):
    journal.append_group(make_group(0, members=1))
    with pytest.raises(ValueError, match="unknown or consumed before"):
        journal.mark_consumed(1, [0, 1])
    assert journal.consumed() == []


def test_a_group_cannot_be_consumed_twice(journal, make_group):
    journal.append_group(make_group(0, members=1))
    journal.mark_consumed(1, [0])
    with pytest.raises(ValueError, match="unknown or consumed before"):
        journal.mark_consumed(2, [0])
    assert journal.consumed() == [(1, (0,))]


def test_rewind_forgets_later_steps_and_keeps_the_groups(journal, make_group):
    for index in range(3):
        journal.append_group(make_group(index, members=1))
        journal.mark_consumed(index + 1, [index])
        journal.add_evaluation("held_out", index + 1, {"success": 0.5})
    journal.rewind(1)
    assert journal.consumed() == [(1, (0,))]
    assert journal.evaluations("held_out") == [(1, {"success": 0.5})]
    assert list(journal.load_groups()) == [0, 1, 2]
    journal.mark_consumed(2, [1])


def test_evaluations_are_kept_by_name_and_step(journal):
    journal.add_evaluation("after", 8, {"success": 0.9})
    journal.add_evaluation("before", 0, {"success": 0.3})
    journal.add_evaluation("after", 4, {"success": 0.7})
    journal.add_evaluation("after", 8, {"success": 0.95, "tags": ["two_query"]})
    assert journal.evaluations("after") == [(4, {"success": 0.7}), (8, {"success": 0.95, "tags": ["two_query"]})]
    assert journal.evaluations("before") == [(0, {"success": 0.3})]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_every_connection_to_a_file_is_durable_and_checks_foreign_keys(journal):
    pragmas = {p: journal.rows(text(f"PRAGMA {p}"))[0][0] for p in ("journal_mode", "synchronous", "foreign_keys")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_every_connection_to_a_postgresql_is_durable(run_dir, postgresql):
    with create_journal(run_dir, store=postgresql) as journal:
        assert journal.rows(text("SHOW synchronous_commit")) == [("on",)], "the server of the tests has it off"


def test_runs_share_a_postgresql_and_see_nothing_of_each_other(tmp_path, postgresql, make_group):
    with (
        create_journal(tmp_path / "a", store=postgresql) as one,
        create_journal(tmp_path / "b", store=postgresql) as other,
    ):
        for journal in (one, other):
            journal.append_group(make_group(0, members=journal.run))
            journal.mark_consumed(1, [0])
            journal.add_evaluation("test", 1, {"run": journal.run})
        other.rewind(0)
        assert one.consumed() == [(1, (0,))]
        assert other.consumed() == []
        assert one.evaluations("test") == [(1, {"run": one.run})]
        assert [len(journal.load_groups()[0].trajectories) for journal in (one, other)] == [one.run, other.run]
        assert len(one.scores()) == one.run


def test_worker_threads_may_take_turns(journal, make_group):
    for index in range(4):
        thread = Thread(target=journal.append_group, args=(make_group(index),))
        thread.start()
        thread.join()
    assert list(journal.load_groups()) == [0, 1, 2, 3]


def test_another_process_can_read_while_the_run_writes(run_dir, journal, make_group):
    journal.append_group(make_group(0))
    with open_journal(run_dir) as reader:
        journal.append_group(make_group(1))
        assert list(reader.load_groups()) == [0, 1]


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "store.db").write_text("not a database, but long enough to have a header" * 50)
    with pytest.raises(UserError, match=r"store.db cannot be used: file is not a database"):
        open_journal(tmp_path)


def test_a_folder_without_episodes_is_refused(tmp_path):
    with pytest.raises(UserError, match="There are no episodes in"):
        open_journal(tmp_path)
    assert list(tmp_path.iterdir()) == []


def append_until_killed(run_dir: Path, store: str, after: int) -> list[int]:
    """Indices that a writing process had acknowledged when it was killed with SIGKILL."""
    command = [sys.executable, str(WRITER), str(run_dir), store]
    environment = os.environ | {"PYTHONPATH": f"{WRITER.parent}:{ROOT}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        lines = [writer.stdout.readline() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return [int(line) for line in lines if line.endswith("\n")]


def test_whatever_was_acknowledged_survives_kill_9(run_dir, store, make_group):
    acknowledged: list[int] = []
    for _ in range(3):
        acknowledged += append_until_killed(run_dir, store, after=random.Random(len(acknowledged)).randint(1, 12))
        with open_journal(run_dir) as journal:
            found = journal.load_groups()
            consumed = journal.consumed()
        assert set(acknowledged) <= set(found)
        assert list(found) == list(range(len(found)))
        assert len(found) <= len(acknowledged) + 3, "at most one unacknowledged group per kill"
        assert [len(group.trajectories) for group in found.values()] == [3] * len(found)
        assert {i // 2 for i in acknowledged if i % 2} <= {step for step, _ in consumed}
        last = found[max(found)]
        np.testing.assert_array_equal(
            last.trajectories[0].segments[0].token_ids_T, make_group(last.index).trajectories[0].segments[0].token_ids_T
        )
