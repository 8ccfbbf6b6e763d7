"""The database is locked, away, full: waited for until a deadline, then one sentence, and nothing lost or twice."""

import itertools
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Event, Thread, Timer

import psycopg
import pytest
from sqlalchemy import event, select, text

from agent_rl.errors import UserError
from agent_rl.store import schema
from agent_rl.store.opening import create_journal, open_journal
from tests.unit.envs.sql.servers import postgres_home, running_postgres


@contextmanager
def locked(path) -> Iterator[sqlite3.Connection]:
    """By another connection, which keeps everybody else from writing."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_a_locked_file_is_waited_for(tmp_path, make_group):
    with create_journal(tmp_path, timeout_s=20) as journal, locked(tmp_path / "store.db") as other:
        release = Timer(0.3, lambda: other.execute("COMMIT"))
        release.start()
        journal.append_group(make_group(0))
        release.join()
        assert list(journal.load_groups()) == [0]


def test_a_file_that_stays_locked_is_one_sentence_after_the_deadline(tmp_path, make_group):
    with create_journal(tmp_path, timeout_s=0.3) as journal, locked(tmp_path / "store.db"):
        began = time.monotonic()
        with pytest.raises(UserError, match=r"store.db could not be used for 0.3 s \(database is locked\): end what"):
            journal.append_group(make_group(0))
        assert time.monotonic() - began < 10
    with create_journal(tmp_path) as journal:
        assert list(journal.load_groups()) == []


def test_a_full_file_is_one_sentence_and_goes_on_when_there_is_room(tmp_path, make_group):
    with create_journal(tmp_path) as journal:
        journal.append_group(make_group(0))
        with journal._database._engine.connect() as connection:
            pages = connection.execute(text("PRAGMA page_count")).scalar()
            connection.execute(text(f"PRAGMA max_page_count = {pages + 5}"))
        with pytest.raises(UserError, match=r"store.db is full \(database or disk is full\): free space, then go on"):
            journal.append_group(make_group(1, tokens=100_000))
        assert list(journal.load_groups()) == [0]
        with journal._database._engine.connect() as connection:
            connection.execute(text("PRAGMA max_page_count = 1000000"))
        journal.append_group(make_group(1, tokens=100_000))
        assert list(journal.load_groups()) == [0, 1]


def test_what_was_committed_without_an_answer_is_not_written_twice(tmp_path, postgresql, make_group, monkeypatch):
    """The connection breaks between the commit and its acknowledgement: the transaction is run again."""
    with create_journal(tmp_path, store=postgresql) as journal:
        dialect, lost = journal._database._engine.dialect, []

        def commit_and_break(connection) -> None:
            connection.commit()
            if len(lost) % 2 == 0:
                lost.append(connection)
                connection.dbapi_connection.close()
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            lost.append(None)

        monkeypatch.setattr(dialect, "do_commit", commit_and_break)
        journal.append_group(make_group(0))
        journal.mark_consumed(1, [0])
        journal.index_checkpoints([])
        assert len([connection for connection in lost if connection]) == 3
        monkeypatch.undo()
        assert journal.consumed() == [(1, (0,))]
        assert len(journal.load_groups()[0].trajectories) == 3
        assert len(journal.rows(select(schema.turns))) == 6


def outage(tmp_path, make_group, *, away_s: float, timeout_s: float) -> None:
    """A PostgreSQL is killed while a run writes, and started again on the same data."""
    acknowledged, stop, errors = [], Event(), []

    def write(journal) -> None:
        try:
            for index in itertools.count():
                if stop.is_set():
                    return
                journal.append_group(make_group(index, members=1))
                journal.mark_consumed(index + 1, [index])
                acknowledged.append(index)
        except BaseException as error:  # noqa: BLE001  # the test says so
            errors.append(error)

    with postgres_home() as home:
        with running_postgres(*home) as (url, server):
            journal = create_journal(tmp_path, store=url, timeout_s=timeout_s)
            writer = Thread(target=write, args=(journal,))
            writer.start()
            while len(acknowledged) < 5:
                assert writer.is_alive()
                time.sleep(0.01)
            server.kill()
            server.wait()
        before = len(acknowledged)
        time.sleep(away_s)
        assert writer.is_alive(), errors
        with running_postgres(*home):
            deadline = time.monotonic() + 30
            while len(acknowledged) < before + 5 and writer.is_alive() and time.monotonic() < deadline:
                time.sleep(0.01)
            stop.set()
            writer.join(30)
            assert errors == []
            assert len(acknowledged) >= before + 5
            assert journal.consumed() == [(index + 1, (index,)) for index in acknowledged]
            assert list(journal.load_groups()) == acknowledged
            with pytest.raises(UserError, match="is in use by process"):
                create_journal(tmp_path, store=url)  # the run is owned after the outage as before
            journal.close()


def test_a_server_that_comes_back_loses_nothing(tmp_path, make_group, server):
    outage(tmp_path, make_group, away_s=1.0, timeout_s=30)


@pytest.mark.slow
def test_a_server_that_is_gone_for_30_s_loses_nothing(tmp_path, make_group, server):
    outage(tmp_path, make_group, away_s=30.0, timeout_s=60)


def test_a_server_that_stays_away_is_one_sentence_after_the_deadline(tmp_path, make_group, server):
    with postgres_home() as home:
        with running_postgres(*home) as (url, _):
            journal = create_journal(tmp_path, store=url, timeout_s=0.5)
            journal.append_group(make_group(0))
        with pytest.raises(UserError, match=r"could not be used for 0.5 s \(.*refused.*\): .* start it again, then go"):
            journal.append_group(make_group(1))
        journal.close()
        with pytest.raises(UserError, match=r"cannot be used: .*refused"):
            create_journal(tmp_path, store=url, timeout_s=60)  # at once: an address is wrong more often than asleep
        with running_postgres(*home), create_journal(tmp_path) as again:
            assert list(again.load_groups()) == [0]


def test_a_server_that_falls_silent_is_one_sentence_after_the_deadline(tmp_path, make_group, server):
    """The kernel goes on accepting, connections too, but nobody answers."""
    with (
        postgres_home() as home,
        running_postgres(*home) as (url, postmaster),
        create_journal(tmp_path, store=url, timeout_s=2) as journal,
    ):
        journal.append_group(make_group(0))
        [(backend,)] = journal.rows(text("SELECT pg_backend_pid()"))
        for process in (backend, postmaster.pid):
            os.kill(process, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(UserError, match=r"could not be used for 2 s \(no answer for 2 s\): end what locks it"):
            journal.append_group(make_group(1))
        assert time.monotonic() - began < 10
        with pytest.raises(UserError, match="cannot be used: connection timeout expired"):
            open_journal(tmp_path, timeout_s=2)
        for process in (backend, postmaster.pid):
            os.kill(process, signal.SIGCONT)
        journal.append_group(make_group(1))
        assert list(journal.load_groups()) == [0, 1]


def test_a_server_that_never_says_a_word_is_one_sentence(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"postgresql+psycopg://me@127.0.0.1:{silent.getsockname()[1]}/rl"
        began = time.monotonic()
        with pytest.raises(UserError, match="cannot be used: connection timeout expired"):
            create_journal(tmp_path, store=url, timeout_s=2)
        assert time.monotonic() - began < 10


def test_a_slow_answer_is_waited_for_as_long_as_there_is_some(tmp_path, postgresql):
    with create_journal(tmp_path, store=postgresql, timeout_s=1.5) as journal:
        assert len(journal.rows(text("SELECT pg_sleep(0.1), repeat('x', 100000) FROM generate_series(1, 25)"))) == 25


def test_a_reader_sees_whole_groups_while_the_run_writes(tmp_path, make_group):
    """Both queries of a read see one state of the file."""
    with create_journal(tmp_path) as writer, create_journal(tmp_path) as reader:
        writer.append_group(make_group(0))

        def write_in_between(connection, cursor, statement, *_) -> None:
            if "FROM groups" in statement and not written:
                written.append(True)
                writer.append_group(make_group(1))

        written: list[bool] = []
        event.listen(reader._database._engine, "after_cursor_execute", write_in_between)
        assert [len(group.trajectories) for group in reader.load_groups().values()] == [3]
        assert list(reader.load_groups()) == [0, 1]
