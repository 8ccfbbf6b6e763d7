"""The environment of a run, and the definitions of the tools that its episodes were shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add them, not known for what is there. SQLite copies the records: it adds no foreign key to a table."""
    op.add_column("runs", sa.Column("environment", sa.Text))
    op.create_table(
        "tool_sets",
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.key"), primary_key=True),
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("definitions", sa.Text, nullable=False),
    )
    with op.batch_alter_table("records") as records:
        records.add_column(sa.Column("tools", sa.String(64)))
        records.create_foreign_key("records_of_tool_sets", "tool_sets", ["run", "tools"], ["run", "hash"])
