"""The tables of a run's journal. The whole schema is in this file; nothing here opens a database.

    store ------------ one row: the version of this schema
    groups ----------- one row per finished group, keyed by its logical index; holds the task
     +-- trajectories  one row per member: columns to filter by, the record as JSON, the token rows as a blob
     +-- consumed ---- which training step consumed the group, at which position of its batch
    evaluations ------ one row per (name, step)

Summary columns repeat what the record holds: they exist to be queried, the record is the truth.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1

metadata = MetaData()

store = Table("store", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

groups = Table(
    "groups",
    metadata,
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("task_id", String, nullable=False, index=True),
    Column("environment", String, nullable=False),
    Column("task", Text, nullable=False, doc="JSON of the Task, shared by all members"),
    Column("finished_at", Float, nullable=False, doc="seconds since the epoch"),
)

trajectories = Table(
    "trajectories",
    metadata,
    Column("group_index", Integer, ForeignKey(groups.c.index), primary_key=True),
    Column("member", Integer, primary_key=True, autoincrement=False),
    Column("reward", Float, doc="null when not finite"),
    Column("stop_reason", String, nullable=False),
    Column("failure_owner", String, doc="null unless the episode is excluded"),
    Column("failure_kind", String),
    Column("turns", Integer, nullable=False),
    Column("tool_calls", Integer, nullable=False),
    Column("tool_errors", Integer, nullable=False),
    Column("tokens", Integer, nullable=False, doc="tokens of all segments"),
    Column("sampled_tokens", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("setup_s", Float, nullable=False),
    Column("generation_s", Float, nullable=False),
    Column("step_s", Float, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("record", Text, nullable=False, doc="JSON, see records.trajectory_to_json"),
    Column("token_rows", LargeBinary, nullable=False, doc="see records.segments_to_blob"),
    Index("trajectories_by_reward", "reward"),
    Index("trajectories_by_failure", "failure_owner"),
)

# The foreign key keeps the rule that a group is durable before it is trained on; the primary key, that it is used once.
consumed = Table(
    "consumed",
    metadata,
    Column("group_index", Integer, ForeignKey(groups.c.index), primary_key=True),
    Column("step", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    UniqueConstraint("step", "position"),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("name", String, primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("report", Text, nullable=False, doc="JSON"),
)
