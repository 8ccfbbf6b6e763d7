"""The tables of the store. The whole schema is in this file; nothing here opens a database.

    runs -------------- one row per run: a SQLite file holds one, a PostgreSQL database any number of them
     +-- tool_sets ---- definitions of tools, once for all episodes that were shown the same
     +-- groups ------- one row per finished group, keyed by its logical index; holds the task
     |    +-- trajectories  one row per member: columns to filter and sort by
     |    |    +-- records -------- what the episode was: JSON and token rows, the truth
     |    |    +-- turns, tool_calls, failures    what is asked about them, one row each
     |    |    +-- trained_tokens -- what the trainer saw of a segment's sampled tokens at a step
     |    +-- consumed - which training step consumed the group, at which position of its batch
     +-- checkpoints -- an index of the folders, which are the truth
     +-- evaluations -- one row per (name, step)

Everything but `records`, `tool_sets`, `trained_tokens` and the tasks repeats what a record holds: it exists to be
queried, without reading a record. That is why records have a table of their own. `run` is `runs.key`, a small number
where the id, which is unique in the world, would take 32 bytes in each row and index. Changes come with a migration,
see `migrations/`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = "0003"
"""That of the latest migration."""

metadata = MetaData()


def _run() -> Column[int]:
    return Column("run", Integer, ForeignKey("runs.key"), primary_key=True)


def _key(name: str) -> Column[int]:
    return Column(name, Integer, primary_key=True, autoincrement=False)


def _of(table: str, *columns: str) -> ForeignKeyConstraint:
    """Deleting a group deletes all that is known of it."""
    own = ("group_index", *columns)
    theirs = ("index",) if table == "groups" else own
    return ForeignKeyConstraint(("run", *own), [f"{table}.{c}" for c in ("run", *theirs)], ondelete="CASCADE")


_SMALL: dict[str, Any] = {"sqlite_with_rowid": False}  # the primary key is the table: rows are stored once

runs = Table(
    "runs",
    metadata,
    Column("key", Integer, primary_key=True),
    Column("id", String(32), nullable=False, unique=True, doc="a UUID, in hex"),
    Column("name", String, nullable=False, doc="that of its folder"),
    Column("created_at", Float, nullable=False, doc="seconds since the epoch"),
    Column("config", Text, nullable=False, doc="JSON of the options of the run"),
    Column("environment", Text, doc="JSON, see registry.environment_to_json; null when it is not known"),
)

tool_sets = Table(
    "tool_sets",
    metadata,
    _run(),
    Column("hash", String(64), primary_key=True, doc="SHA-256 of the definitions, in hex"),
    Column("definitions", Text, nullable=False, doc="JSON, see records.tools_to_json"),
)

groups = Table(
    "groups",
    metadata,
    _run(),
    _key("index"),
    Column("task_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("task", Text, nullable=False, doc="JSON of the Task, shared by all members"),
    Column("finished_at", Float, nullable=False, doc="seconds since the epoch"),
    Index("groups_by_task", "run", "task_id"),
)

trajectories = Table(
    "trajectories",
    metadata,
    _run(),
    _key("group_index"),
    _key("member"),
    Column("task_id", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("reward", Float, doc="null when not finite"),
    Column("stop_reason", String, nullable=False),
    Column("failure_owner", String, doc="null unless the episode is excluded"),
    Column("failure_kind", String),
    Column("turns", Integer, nullable=False),
    Column("tool_calls", Integer, nullable=False),
    Column("tool_errors", Integer, nullable=False),
    Column("segments", Integer, nullable=False, doc="more than one: its history was rewritten"),
    Column("tokens", Integer, nullable=False, doc="tokens of all segments"),
    Column("sampled_tokens", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("began_at", Float, nullable=False, doc="seconds since the epoch"),
    Column("setup_s", Float, nullable=False),
    Column("generation_s", Float, nullable=False),
    Column("step_s", Float, nullable=False),
    Column("duration_s", Float, nullable=False),
    _of("groups"),
    Index("trajectories_by_task", "run", "task_id"),
    Index("trajectories_by_reward", "run", "reward"),
    Index("trajectories_by_failure", "run", "failure_owner"),
    Index("trajectories_by_turns", "run", "turns"),
    Index("trajectories_by_tokens", "run", "tokens"),
    Index("trajectories_by_duration", "run", "duration_s"),
)

records = Table(
    "records",
    metadata,
    _run(),
    _key("group_index"),
    _key("member"),
    Column("tools", String(64), doc="hash of the tool set; null when no tools were shown"),
    Column("record", Text, nullable=False, doc="JSON, see records.trajectory_to_json"),
    Column("token_rows", LargeBinary, nullable=False, doc="see records.segments_to_blob"),
    Column("checksum", BigInteger, nullable=False, doc="see records.checksum"),
    _of("trajectories", "member"),
    ForeignKeyConstraint(("run", "tools"), ("tool_sets.run", "tool_sets.hash"), name="records_of_tool_sets"),
)

turns = Table(
    "turns",
    metadata,
    _run(),
    _key("group_index"),
    _key("member"),
    _key("index"),
    Column("prompt_tokens", Integer, nullable=False, doc="what the model read before it acted"),
    Column("sampled_tokens", Integer, nullable=False),
    Column("reward", Float, doc="null when not finite"),
    Column("finish_reason", String, nullable=False),
    Column("tag", String, nullable=False),
    Column("began_s", Float, nullable=False, doc="since the beginning of the episode"),
    Column("generation_s", Float, nullable=False),
    Column("step_s", Float, nullable=False),
    _of("trajectories", "member"),
    **_SMALL,
)

tool_calls = Table(
    "tool_calls",
    metadata,
    _run(),
    _key("group_index"),
    _key("member"),
    _key("turn"),
    _key("position"),
    Column("name", String, nullable=False),
    Column("error", String, doc="null when it went well"),
    Column("duration_s", Float, nullable=False),
    _of("trajectories", "member"),
    Index("tool_calls_by_name", "run", "name"),
    **_SMALL,
)

failures = Table(
    "failures",
    metadata,
    _run(),
    _key("group_index"),
    _key("member"),
    Column("attempt", Integer, primary_key=True, autoincrement=False, doc="from 1"),
    Column("owner", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("message", Text, nullable=False),
    _of("trajectories", "member"),
    **_SMALL,
)

trained_tokens = Table(
    "trained_tokens",
    metadata,
    _run(),
    _key("group_index"),
    _key("member"),
    _key("segment"),
    _key("step"),
    Column("seen", LargeBinary, nullable=False, doc="see trained_tokens.to_blob"),
    _of("trajectories", "member"),
    Index("trained_tokens_by_step", "run", "step"),
)

# The foreign key keeps the rule that a group is durable before it is trained on; the primary key, that it is used once.
# A consumed group cannot be deleted.
consumed = Table(
    "consumed",
    metadata,
    _run(),
    _key("group_index"),
    Column("step", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    ForeignKeyConstraint(["run", "group_index"], ["groups.run", "groups.index"]),
    UniqueConstraint("run", "step", "position", name="consumed_in_order"),
    **_SMALL,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _run(),
    _key("step"),
    Column("path", String, nullable=False, doc="inside the run's folder"),
    Column("next_group_index", Integer, nullable=False),
    Column("weight_version", Integer, nullable=False),
    Column("saved_at", Float, nullable=False, doc="seconds since the epoch"),
)

evaluations = Table(
    "evaluations",
    metadata,
    _run(),
    Column("name", String, primary_key=True),
    _key("step"),
    Column("report", Text, nullable=False, doc="JSON"),
)
