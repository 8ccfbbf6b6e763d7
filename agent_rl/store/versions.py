"""Which schema a database has, and how it gets the present one: made whole, upgraded by Alembic, or refused.

A file is upgraded as a copy that then takes its place, so that a kill leaves one or the other; what it was stays beside
it, as `store.db.v0001`. A PostgreSQL is upgraded in one transaction.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, String, column, create_engine, event, insert, inspect, select, table, text
from sqlalchemy.engine import URL

from agent_rl.errors import UserError
from agent_rl.store import schema
from agent_rl.store.database import begin_sqlite, configure_sqlite, connect_read_only

MIGRATIONS = Path(__file__).with_name("migrations")
FIRST = "0001"
"""What a store has that no version is written in: it is older than migrations."""

_ONE_AT_A_TIME = 0x6167656E74_726C  # an advisory lock of PostgreSQL, while a schema is made or upgraded
_versions = table("alembic_version", column("version_num", String))


def prepare(connection: Connection, name: str) -> None:
    """Make or upgrade the schema, in the connection's transaction. Raises `UserError` for one that is not known."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
    version = version_of(connection, name)
    if version is None:
        schema.metadata.create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(insert(_versions).values(version_num=schema.VERSION))
    elif version != schema.VERSION:
        upgrade(connection)


def version_of(connection: Connection, name: str) -> str | None:
    """`None` for a database without a store. Raises `UserError` for a version that is not known."""
    tables = inspect(connection).get_table_names()
    if _versions.name in tables:
        version = connection.execute(select(_versions.c.version_num)).scalar_one()
    else:
        version = FIRST if "trajectories" in tables else None
    if version is not None and version not in _known():
        raise UserError(
            f"The store {name} has schema version {version}, and this agent-rl knows up to {schema.VERSION}: use a "
            "later agent-rl, or another run folder."
        )
    return version


def upgrade_file(path: Path, version: str) -> None:
    """Bring a SQLite file from `version` to the present one. Raises `UserError` when another process has it open."""
    copy, before = path.with_name(f"{path.name}.upgrading"), path.with_name(f"{path.name}.v{version}")
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as old, closing(sqlite3.connect(copy)) as new:
        try:  # nothing may be left in a log beside the file, for it would be taken for the log of the new one
            old.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as error:
            raise UserError(f"{path} has to be upgraded, and another process has it open: end that first.") from error
        old.backup(new)
    engine = create_engine(URL.create("sqlite", database=str(copy)))
    event.listen(engine, "connect", configure_sqlite)
    event.listen(engine, "begin", begin_sqlite)
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    before.unlink(missing_ok=True)
    os.link(path, before)
    copy.replace(path)


def upgraded_copy(path: Path, version: str, folder: Path, timeout_s: float) -> Path:
    """A copy in `folder` with the present schema, of a SQLite file that has another and stays as it is."""
    copy = folder / path.name
    with closing(connect_read_only(path, timeout_s)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    upgrade_file(copy, version)
    return copy


def _known() -> set[str]:
    return {path.name[1:5] for path in (MIGRATIONS / "versions").glob("v*.py")}


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, all of them on an empty database."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    tables = inspect(connection).get_table_names()
    if _versions.name not in tables and "trajectories" in tables:
        command.stamp(config, FIRST)
    command.upgrade(config, "head")
