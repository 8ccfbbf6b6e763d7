"""Any number of runs, records apart from their summaries, rows for turns, tool calls and failures.

The tables are written out here, not taken from `schema`, which goes on changing.
"""

from __future__ import annotations

import json
import math
import time
import uuid
import zlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_OLD = ("groups", "trajectories", "consumed", "evaluations")


def upgrade() -> None:
    """Set the old tables aside, make the new ones, move what was there."""
    connection = op.get_bind()
    for name in _OLD:
        op.execute(f"CREATE TABLE old_{name} AS SELECT * FROM {name}")
    for name in (*reversed(_OLD), "store"):
        op.drop_table(name)
    tables = _make()
    if connection.execute(sa.text("SELECT 1 FROM old_groups UNION SELECT 1 FROM old_evaluations")).first():
        _move(connection, tables)
    for name in _OLD:
        op.drop_table(f"old_{name}")


def _make() -> dict[str, sa.Table]:
    """The new tables by name."""
    made = [
        _table(
            "runs",
            sa.Column("key", sa.Integer, primary_key=True),
            sa.Column("id", sa.String(32), nullable=False, unique=True),
            *_strings("name"),
            *_floats("created_at"),
            sa.Column("config", sa.Text, nullable=False),
        ),
        _table(
            "groups",
            *_keys("run", "index"),
            *_strings("task_id", "environment"),
            sa.Column("task", sa.Text, nullable=False),
            *_floats("finished_at"),
            _of_run(),
            sa.Index("groups_by_task", "run", "task_id"),
        ),
        _trajectories(),
        _table(
            "records",
            *_keys("run", "group_index", "member"),
            sa.Column("record", sa.Text, nullable=False),
            sa.Column("token_rows", sa.LargeBinary, nullable=False),
            sa.Column("checksum", sa.BigInteger, nullable=False),
            *_below_trajectories(),
        ),
        _table(
            "turns",
            *_keys("run", "group_index", "member", "index"),
            *_integers("prompt_tokens", "sampled_tokens"),
            sa.Column("reward", sa.Float),
            *_strings("finish_reason", "tag"),
            *_floats("began_s", "generation_s", "step_s"),
            *_below_trajectories(),
            sqlite_with_rowid=False,
        ),
        _table(
            "tool_calls",
            *_keys("run", "group_index", "member", "turn", "position"),
            *_strings("name"),
            sa.Column("error", sa.String),
            *_floats("duration_s"),
            *_below_trajectories(),
            sa.Index("tool_calls_by_name", "run", "name"),
            sqlite_with_rowid=False,
        ),
        _table(
            "failures",
            *_keys("run", "group_index", "member", "attempt"),
            *_strings("owner", "kind", "stage"),
            sa.Column("message", sa.Text, nullable=False),
            *_below_trajectories(),
            sqlite_with_rowid=False,
        ),
        _table(
            "trained_tokens",
            *_keys("run", "group_index", "member", "segment", "step"),
            sa.Column("seen", sa.LargeBinary, nullable=False),
            *_below_trajectories(),
            sa.Index("trained_tokens_by_step", "run", "step"),
        ),
        _table(
            "consumed",
            *_keys("run", "group_index"),
            *_integers("step", "position"),
            _of_run(),
            sa.ForeignKeyConstraint(["run", "group_index"], ["groups.run", "groups.index"]),
            sa.UniqueConstraint("run", "step", "position", name="consumed_in_order"),
            sqlite_with_rowid=False,
        ),
        _table(
            "checkpoints",
            *_keys("run", "step"),
            *_strings("path"),
            *_integers("next_group_index", "weight_version"),
            *_floats("saved_at"),
            _of_run(),
        ),
        _table(
            "evaluations",
            *_keys("run"),
            sa.Column("name", sa.String, primary_key=True),
            *_keys("step"),
            sa.Column("report", sa.Text, nullable=False),
            _of_run(),
        ),
    ]
    return {table.name: table for table in made}


def _trajectories() -> sa.Table:
    indexed = {"task": "task_id", "reward": "reward", "failure": "failure_owner", "turns": "turns"}
    indexed |= {"tokens": "tokens", "duration": "duration_s"}
    return _table(
        "trajectories",
        *_keys("run", "group_index", "member"),
        *_strings("task_id", "environment"),
        sa.Column("reward", sa.Float),
        *_strings("stop_reason"),
        sa.Column("failure_owner", sa.String),
        sa.Column("failure_kind", sa.String),
        *_integers("turns", "tool_calls", "tool_errors", "segments", "tokens", "sampled_tokens", "attempts"),
        *_floats("began_at", "setup_s", "generation_s", "step_s", "duration_s"),
        _of_run(),
        sa.ForeignKeyConstraint(["run", "group_index"], ["groups.run", "groups.index"], ondelete="CASCADE"),
        *(sa.Index(f"trajectories_by_{name}", "run", column) for name, column in indexed.items()),
    )


def _table(name: str, *parts: Any, **options: Any) -> sa.Table:
    return op.create_table(name, *parts, **options)


def _keys(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer, primary_key=True, autoincrement=False) for name in names]


def _integers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]


def _floats(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float, nullable=False) for name in names]


def _strings(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, nullable=False) for name in names]


def _of_run() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["run"], ["runs.key"])


def _below_trajectories() -> list[sa.ForeignKeyConstraint]:
    keys = ["run", "group_index", "member"]
    return [_of_run(), sa.ForeignKeyConstraint(keys, [f"trajectories.{key}" for key in keys], ondelete="CASCADE")]


# --- what was there ---


def _move(connection: sa.Connection, tables: dict[str, sa.Table]) -> None:
    """All of the one run, a group at a time."""
    run = {"id": uuid.uuid4().hex, "name": "", "created_at": time.time(), "config": "{}"}
    key = connection.execute(sa.insert(tables["runs"]).returning(tables["runs"].c.key), run).scalar_one()
    groups = connection.execute(sa.text('SELECT * FROM old_groups ORDER BY "index"')).mappings().all()
    members = sa.text("SELECT * FROM old_trajectories WHERE group_index = :index ORDER BY member")
    for group in groups:
        connection.execute(sa.insert(tables["groups"]), {**group, "run": key})
        for old in connection.execute(members, {"index": group["index"]}).mappings().all():
            _move_episode(connection, tables, {**old, "run": key}, dict(group))
    for name in ("consumed", "evaluations"):
        rows = connection.execute(sa.text(f"SELECT * FROM old_{name}")).mappings().all()
        if rows:
            connection.execute(sa.insert(tables[name]), [{**row, "run": key} for row in rows])


def _move_episode(
    connection: sa.Connection, tables: dict[str, sa.Table], old: dict[str, Any], group: dict[str, Any]
) -> None:
    text, blob = old.pop("record"), old.pop("token_rows")
    record: dict[str, Any] = json.loads(text)
    key = {name: old[name] for name in ("run", "group_index", "member")}
    (segments,) = memoryview(blob[:4]).cast("I")
    summary = {
        "task_id": group["task_id"],
        "environment": group["environment"],
        "segments": segments,
        "began_at": record.get("began_at", 0.0),
    }
    connection.execute(sa.insert(tables["trajectories"]), {**old, **summary})
    checksum = zlib.crc32(blob, zlib.crc32(text.encode(), zlib.crc32(group["task"].encode())))
    details = {"record": text, "token_rows": blob, "checksum": checksum}
    connection.execute(sa.insert(tables["records"]), {**key, **details})
    for name, rows in (("turns", _turns(record)), ("tool_calls", _calls(record)), ("failures", _failures(record))):
        if found := [{**key, **row} for row in rows]:
            connection.execute(sa.insert(tables[name]), found)


def _turns(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for index, turn in enumerate(record["turns"]):
        yield {
            "index": index,
            "prompt_tokens": turn["start"],
            "sampled_tokens": turn["end"] - turn["start"],
            "reward": turn["reward"] if math.isfinite(turn["reward"]) else None,
            "finish_reason": turn["finish_reason"],
            "tag": _column(turn.get("tag", "")),
            "began_s": turn.get("began_s", 0.0),
            "generation_s": turn.get("generation_s", 0.0),
            "step_s": turn.get("step_s", 0.0),
        }


def _calls(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for index, turn in enumerate(record["turns"]):
        for position, result in enumerate(turn["tool_results"]):
            yield {
                "turn": index,
                "position": position,
                "name": _column(result["call"]["name"]),
                "error": None if result["error"] is None else _column(result["error"]),
                "duration_s": result["duration_s"],
            }


def _failures(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if (failure := record["failure"]) is not None:
        yield {
            "attempt": record.get("attempts", 1),
            "owner": failure["owner"],
            "kind": _column(failure["kind"]),
            "stage": _column(failure["stage"]),
            "message": _column(failure["message"], 10_000),
        }


def _column(text: str, longest: int = 500) -> str:
    return text[:longest].replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
