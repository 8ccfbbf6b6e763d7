import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from sqlalchemy import create_engine, select

from agent_rl.errors import UserError
from agent_rl.store import schema
from agent_rl.store.journal import Journal

WRITER = Path(__file__).with_name("append_forever.py")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.db"


@pytest.fixture
def journal(path):
    with Journal(path) as journal:
        yield journal


def rows(path: Path, table):
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = [row._asdict() for row in connection.execute(select(table))]
    engine.dispose()
    return found


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


def test_a_group_is_written_whole_or_not_at_all(journal, make_group):
    group = make_group(1)
    twice = dataclasses.replace(group, trajectories=(*group.trajectories, group.trajectories[0]))
    with pytest.raises(Exception, match="UNIQUE"):
        journal.append_group(twice)
    assert journal.load_groups() == {}
    journal.append_group(group)
    assert list(journal.load_groups()) == [1]


def test_an_episode_of_another_task_is_refused(journal, make_group):
    mixed = dataclasses.replace(make_group(1), trajectories=make_group(2).trajectories)
    with pytest.raises(ValueError, match="episode of task 'sql-2', not 'sql-1'"):
        journal.append_group(mixed)


def test_columns_summarise_the_record(path, journal, make_group):
    group = make_group(3)
    nan = dataclasses.replace(group.trajectories[2].turns[0], reward=float("nan"))
    broken = dataclasses.replace(group.trajectories[2], turns=(nan,))
    journal.append_group(dataclasses.replace(group, trajectories=(*group.trajectories[:2], broken)))
    _, failed, not_finite = rows(path, schema.trajectories)
    for name in ("record", "token_rows", "duration_s"):
        failed.pop(name)
    assert failed == {
        "group_index": 3,
        "member": 1,
        "reward": pytest.approx(0.2),
        "stop_reason": "failure",
        "failure_owner": "sandbox",
        "failure_kind": "timeout",
        "turns": 2,
        "tool_calls": 4,
        "tool_errors": 2,
        "tokens": 128,
        "sampled_tokens": 64,
        "attempts": 2,
        "setup_s": 0.25,
        "generation_s": 0.0,
        "step_s": 1.0,
    }
    assert not_finite["reward"] is None
    assert rows(path, schema.groups)[0]["task_id"] == "sql-3"


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


def test_every_connection_is_durable_and_checks_foreign_keys(journal):
    with journal._engine.connect() as connection:
        pragmas = {p: connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_worker_threads_may_take_turns(journal, make_group):
    for index in range(4):
        thread = Thread(target=journal.append_group, args=(make_group(index),))
        thread.start()
        thread.join()
    assert list(journal.load_groups()) == [0, 1, 2, 3]


def test_another_process_can_read_while_the_run_writes(path, journal, make_group):
    journal.append_group(make_group(0))
    with Journal(path) as reader:
        journal.append_group(make_group(1))
        assert list(reader.load_groups()) == [0, 1]


def test_a_file_of_another_schema_version_is_refused(path, journal):
    journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute("update store set version = 99")
    connection.close()
    with pytest.raises(UserError, match="schema version 99"):
        Journal(path)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "journal.db"
    path.write_text("not a database, but long enough to have a header" * 50)
    with pytest.raises(UserError, match="cannot be opened as a journal"):
        Journal(path)


def append_until_killed(path: Path, after: int) -> list[int]:
    """Indices that a writing process had acknowledged when it was killed with SIGKILL."""
    command = [sys.executable, str(WRITER), str(path)]
    environment = os.environ | {"PYTHONPATH": str(WRITER.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        lines = [writer.stdout.readline() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return [int(line) for line in lines if line.endswith("\n")]


def test_whatever_was_acknowledged_survives_kill_9(path, make_group):
    acknowledged: list[int] = []
    for _ in range(3):
        acknowledged += append_until_killed(path, after=random.Random(len(acknowledged)).randint(1, 12))
        with Journal(path) as journal:
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
