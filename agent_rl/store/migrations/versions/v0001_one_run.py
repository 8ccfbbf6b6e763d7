"""The journal of one run in a file of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table("store", sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
    op.create_table(
        "groups",
        sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("task_id", sa.String, nullable=False, index=True),
        sa.Column("environment", sa.String, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("finished_at", sa.Float, nullable=False),
    )
    op.create_table(
        "trajectories",
        sa.Column("group_index", sa.Integer, sa.ForeignKey("groups.index"), primary_key=True),
        sa.Column("member", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("reward", sa.Float),
        sa.Column("stop_reason", sa.String, nullable=False),
        sa.Column("failure_owner", sa.String),
        sa.Column("failure_kind", sa.String),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("turns", "tool_calls", "tool_errors")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("tokens", "sampled_tokens", "attempts")),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("setup_s", "generation_s", "step_s", "duration_s")),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("token_rows", sa.LargeBinary, nullable=False),
        sa.Index("trajectories_by_reward", "reward"),
        sa.Index("trajectories_by_failure", "failure_owner"),
    )
    op.create_table(
        "consumed",
        sa.Column("group_index", sa.Integer, sa.ForeignKey("groups.index"), primary_key=True),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.UniqueConstraint("step", "position"),
    )
    op.create_table(
        "evaluations",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("report", sa.Text, nullable=False),
    )
