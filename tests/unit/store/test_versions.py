"""Stores of earlier versions: upgraded without loss, or refused; and the upgraded schema is the present one."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, select, text

from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.store import records, schema
from agent_rl.store.database import begin_sqlite
from agent_rl.store.opening import create_journal, open_journal
from agent_rl.store.versions import MIGRATIONS, upgrade
from agent_rl.testing.environments import GuessNumber, GuessNumberConfig
from agent_rl.types import Group
from tests.property.test_store import exact

FIRST_TABLES = """
CREATE TABLE store (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE groups ("index" INTEGER NOT NULL, task_id VARCHAR NOT NULL, environment VARCHAR NOT NULL,
    task TEXT NOT NULL, finished_at FLOAT NOT NULL, PRIMARY KEY ("index"));
CREATE INDEX ix_groups_task_id ON groups (task_id);
CREATE TABLE evaluations (name VARCHAR NOT NULL, step INTEGER NOT NULL, report TEXT NOT NULL, PRIMARY KEY (name, step));
CREATE TABLE trajectories (group_index INTEGER NOT NULL, member INTEGER NOT NULL, reward FLOAT,
    stop_reason VARCHAR NOT NULL, failure_owner VARCHAR, failure_kind VARCHAR, turns INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL, tool_errors INTEGER NOT NULL, tokens INTEGER NOT NULL, sampled_tokens INTEGER NOT NULL,
    attempts INTEGER NOT NULL, setup_s FLOAT NOT NULL, generation_s FLOAT NOT NULL, step_s FLOAT NOT NULL,
    duration_s FLOAT NOT NULL, record TEXT NOT NULL, token_rows BLOB NOT NULL, PRIMARY KEY (group_index, member),
    FOREIGN KEY(group_index) REFERENCES groups ("index"));
CREATE INDEX trajectories_by_reward ON trajectories (reward);
CREATE INDEX trajectories_by_failure ON trajectories (failure_owner);
CREATE TABLE consumed (group_index INTEGER NOT NULL, step INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (group_index), UNIQUE (step, position), FOREIGN KEY(group_index) REFERENCES groups ("index"));
INSERT INTO store VALUES (1);
"""
"""What the first version wrote, by `.schema` of sqlite3."""
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},)
SUMMARY = "?, ?, 0.1, 'terminated', NULL, NULL, 2, 4, 2, 128, 64, 1, 0.25, 0, 1, 0.5, ?, ?"


def write_first_version(path: Path, groups) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(FIRST_TABLES)
        for group in groups:
            task = records.task_to_json(group.task)
            connection.execute("INSERT INTO groups VALUES (?, ?, 'sql', ?, 5.0)", (group.index, group.task.id, task))
            for episode in group.trajectories:
                record = {**json.loads(records.trajectory_to_json(episode)), "attempts": 1}
                del record["earlier_failures"]
                rows = records.segments_to_blob(episode.segments)
                connection.execute(
                    f"INSERT INTO trajectories VALUES ({SUMMARY})",
                    (group.index, episode.member, json.dumps(record), rows),
                )
        connection.execute("INSERT INTO consumed VALUES (1, 1, 0)")
        connection.execute("INSERT INTO evaluations VALUES ('after', 4, ?)", (json.dumps({"success": 0.5}),))
        connection.commit()


def at_first(group: Group) -> Group:
    """The group of episodes that succeeded or failed at the first attempt."""
    return replace(group, trajectories=tuple(replace(t, earlier_failures=()) for t in group.trajectories))


def test_a_journal_of_the_first_version_opens_with_all_that_it_held(tmp_path, make_group):
    groups = {index: at_first(make_group(index)) for index in (0, 1, 3)}
    write_first_version(tmp_path / "old" / "store.db", groups.values())
    before = (tmp_path / "old" / "store.db").read_bytes()
    with open_journal(tmp_path / "old") as old, create_journal(tmp_path / "new") as new:
        assert exact(old.load_groups()) == exact(groups)
        assert old.consumed() == [(1, (1,))]
        assert old.evaluations("after") == [(4, {"success": 0.5})]
        for group in groups.values():
            new.append_group(group)
        for table in (schema.turns, schema.tool_calls, schema.failures):
            assert old.rows(select(table)) == new.rows(select(table)), "as if it had been written today"
        columns = schema.trajectories.c
        query = select(columns.task_id, columns.environment, columns.segments, columns.began_at)
        assert old.rows(query) == new.rows(query)
    assert (tmp_path / "old" / "store.db.v0001").read_bytes()[100:] == before[100:], "what it was, but for its header"
    with create_journal(tmp_path / "old") as again:
        again.append_group(make_group(7))
        assert list(again.load_groups()) == [0, 1, 3, 7]


def test_a_store_of_the_second_version_opens_with_all_that_it_held(tmp_path, store, make_group):
    """It knew neither tools nor environments."""
    groups = {index: make_group(index) for index in (0, 1)}
    with create_journal(tmp_path, store=store) as journal:
        for group in groups.values():
            journal.append_group(group)
        journal.mark_consumed(1, [1])
        journal._database.transact(_to_second_version)
    with open_journal(tmp_path) as old:
        assert exact(old.load_groups()) == exact(groups)
        assert (old.consumed(), old.environment()) == ([(1, (1,))], None)
    with create_journal(tmp_path, environment=EnvironmentSpec(GuessNumber, GuessNumberConfig(high=7))) as again:
        again.append_group(replace(make_group(7), trajectories=(replace(make_group(7).trajectories[0], tools=TOOLS),)))
        assert again.load_groups(7)[7].trajectories[0].tools == TOOLS
        assert again.environment()["options"] == {"high": 7}, "known from now on"
    with open_journal(tmp_path) as journal:
        version = journal.rows(text("SELECT version_num FROM alembic_version"))
        assert version == [(schema.VERSION,)]


def _to_second_version(connection) -> None:
    operations = Operations(MigrationContext.configure(connection))
    with operations.batch_alter_table("records") as records_table:
        records_table.drop_constraint("records_of_tool_sets", type_="foreignkey")
        records_table.drop_column("tools")
    operations.drop_table("tool_sets")
    operations.drop_column("runs", "environment")
    connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))


def test_a_kill_while_a_file_is_upgraded_leaves_the_old_one_or_the_new_one(tmp_path, make_group):
    groups = {index: at_first(make_group(index, members=8)) for index in range(30)}
    path = tmp_path / "store.db"
    write_first_version(path, groups.values())
    program = (
        "import sys, agent_rl.store.opening as o, alembic.command, alembic.config, pathlib\n"
        "print('ready', flush=True)\n"
        "o.open_journal(pathlib.Path(sys.argv[1])).close()\n"
    )
    for delay_s in (0.005, 0.02, 0.05, 0.1):
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline()
            try:
                process.wait(delay_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    with open_journal(tmp_path) as journal:
        assert exact(journal.load_groups()) == exact(groups)


def test_a_file_that_another_process_has_open_is_not_upgraded(tmp_path, make_group):
    path = tmp_path / "store.db"
    write_first_version(path, [make_group(1)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM groups").fetchone()
        with pytest.raises(UserError, match="another process has it open: end that first"):
            open_journal(tmp_path)
    with open_journal(tmp_path) as journal:
        assert list(journal.load_groups()) == [1]


def test_a_later_version_is_refused_and_stays_as_it_is(tmp_path, store):
    with create_journal(tmp_path, store=store) as journal:
        journal._database.transact(
            lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
        )
    for opening in (open_journal, create_journal):
        with pytest.raises(
            UserError, match=r"has schema version 0099, and this agent-rl knows up to 0003: use a later"
        ):
            opening(tmp_path)


def test_the_version_is_that_of_the_latest_migration():
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == schema.VERSION


def test_the_upgraded_schema_is_the_present_one(tmp_path, store):
    engine = create_engine(store or f"sqlite:///{tmp_path}/store.db")
    if not store:
        event.listen(engine, "begin", begin_sqlite)
    with engine.begin() as connection:
        upgrade(connection)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata) == []
    engine.dispose()


def test_two_processes_may_make_the_tables_of_one_database(tmp_path, postgresql):
    program = (
        "import sys, pathlib, agent_rl.store.opening as opening\n"
        "opening.create_journal(pathlib.Path(sys.argv[1]), store=sys.argv[2]).close()\n"
    )
    commands = [[sys.executable, "-c", program, str(tmp_path / str(i)), postgresql] for i in range(2)]
    processes = [subprocess.Popen(command, env=os.environ) for command in commands]
    assert [process.wait(60) for process in processes] == [0, 0]
    with create_journal(tmp_path / "third", store=postgresql) as journal:
        assert len(journal.rows(select(schema.runs))) == 3
