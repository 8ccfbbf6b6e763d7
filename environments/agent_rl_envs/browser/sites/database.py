"""The database behind the sites: records, SQLite databases in memory made from bytes, and all of their rows.

Knows no tables: each app declares its own as subclasses of `Record`.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable
from typing import Any, TypeAlias

from sqlalchemy import MetaData, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column
from sqlalchemy.pool import StaticPool

Row: TypeAlias = dict[str, Any]
Tables: TypeAlias = dict[str, dict[int, Row]]
"""Rows by table and id."""

_COMPILED: dict[Any, Any] = {}  # statements, for the engines of all episodes
INCIDENTAL = {"incidental": True}
"""`info` of columns that change in passing, such as whether a mail was read: no task is judged by them."""


class Record(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """A row of a table. Its id is given by the database where it is none; times are texts, `2026-03-18 09:00`."""

    metadata = MetaData()
    id: Mapped[int] = mapped_column(primary_key=True, default=None)


class Profile(Record):
    """Whose account all sites are used with, and what time it is: the clock of the sites stands still."""

    __tablename__ = "profile"
    name: Mapped[str]
    email: Mapped[str]
    now: Mapped[str]


class Database:
    """One database. Making one from an image costs a copy of its bytes."""

    def __init__(self, image: bytes) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.deserialize(image)
        engine = create_engine("sqlite://", creator=lambda: self._connection, poolclass=StaticPool)
        self._engine = engine.execution_options(compiled_cache=_COMPILED)

    def session(self) -> Session:
        """A transaction on it, to be used in a `with` block; one at a time."""
        return Session(self._engine, expire_on_commit=False)

    def image(self) -> bytes:
        """The whole state."""
        return self._connection.serialize()

    def close(self) -> None:
        """Free it. Idempotent."""
        self._connection.close()


def make_image(records: Iterable[Record]) -> bytes:
    """A database with these records."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(_empty())
    by_kind: dict[type[Record], list[Row]] = {}
    for record in records:
        by_kind.setdefault(type(record), []).append(row_of(record))
    for kind, rows in by_kind.items():
        names = list(rows[0])
        places = ", ".join("?" * len(names))
        values = [tuple(row.values()) for row in rows]
        connection.executemany(f"INSERT INTO {kind.__tablename__} ({', '.join(names)}) VALUES ({places})", values)
    connection.commit()
    image = connection.serialize()
    connection.close()
    return image


def tables_of(image: bytes) -> Tables:
    """All rows, without the columns that change in passing."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(image)
    connection.row_factory = sqlite3.Row
    tables: Tables = {}
    for name, table in Record.metadata.tables.items():
        kept = [column.name for column in table.columns if not column.info.get("incidental")]
        rows = connection.execute(f"SELECT {', '.join(kept)} FROM {name}").fetchall()
        tables[name] = {row["id"]: dict(row) for row in rows}
    connection.close()
    return tables


def row_of(record: Record) -> Row:
    """Its values by column."""
    return {column.name: getattr(record, column.name) for column in record.__table__.columns}


@functools.cache
def _empty() -> bytes:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    Record.metadata.create_all(engine)
    image = connection.serialize()
    connection.close()
    return image
