"""A database of runs, SQLite or PostgreSQL: connections, and transactions that outlast an outage. Knows no table.

Durability. SQLite in WAL mode with `synchronous=FULL`, PostgreSQL with `synchronous_commit=on`: what was committed has
been fsynced and survives kill -9 and power loss. (SQLite's `NORMAL` would survive kill -9 but may lose the last commits
with the power, and then a durable checkpoint could name groups that are gone.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from agent_rl.errors import UserError

T = TypeVar("T")

FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 1.0


class Database:
    """One connection to the database at `url`, made anew when it is lost. Close it when done.

    One thread at a time. `timeout_s` is how long a transaction is tried again while the database is locked or away.
    """

    def __init__(self, url: URL, *, timeout_s: float) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._engine = create_engine(url, connect_args=_connect_args(url, timeout_s), pool_size=1, max_overflow=0)
        event.listen(self._engine, "connect", _configure_sqlite if is_sqlite(url) else _configure_postgresql)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, and again after an outage: it may already have been committed, so it has to be
        idempotent. Durable on return. Raises `UserError` when the database stays away, is full or damaged.
        """
        deadline = time.monotonic() + self._timeout_s
        delay_s = FIRST_DELAY_S
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except IntegrityError:
                raise
            except DBAPIError as error:
                if not _may_pass(error) or time.monotonic() + delay_s > deadline:
                    raise UserError(self._explain(error)) from error
            time.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def close(self) -> None:
        """Idempotent."""
        self._engine.dispose()

    def _explain(self, error: DBAPIError) -> str:
        where = self.url.database if is_sqlite(self.url) else self.url.render_as_string(hide_password=True)
        return f"The store {where} cannot be used: {str(error.orig).strip().partition(chr(10))[0]}."


def is_sqlite(url: URL) -> bool:
    """Whether it is a file."""
    return url.get_backend_name() == "sqlite"


def _connect_args(url: URL, timeout_s: float) -> dict[str, Any]:
    return {"timeout": timeout_s} if is_sqlite(url) else {"connect_timeout": max(2, round(timeout_s))}


def _configure_sqlite(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _configure_postgresql(connection: Any, _record: object) -> None:
    connection.execute(str(text("SET synchronous_commit = on")))
    connection.commit()


def _may_pass(error: DBAPIError) -> bool:
    return error.connection_invalidated or "database is locked" in str(error.orig)
