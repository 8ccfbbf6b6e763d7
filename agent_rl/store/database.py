"""A database of runs, SQLite or PostgreSQL: connections, and transactions that outlast an outage. Knows no table.

Durability. SQLite in WAL mode with `synchronous=FULL`, PostgreSQL with `synchronous_commit=on`: what was committed has
been fsynced and survives kill -9 and power loss. (SQLite's `NORMAL` would survive kill -9 but may lose the last commits
with the power, and then a durable checkpoint could name groups that are gone.)
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, NullPool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from agent_rl.errors import ConfigError, UserError
from agent_rl.store.lock import this_process

T = TypeVar("T")

FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 1.0

_LOST = ("57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03")
"""SQLSTATEs after which another attempt may do: shutdown, crash, start-up, too many clients, conflicts, a lock."""
_FULL = ("53100",)
_OWNER_OF = """
    SELECT activity.application_name FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = %s
"""


class Database:
    """One connection to the database at `url`, made anew when it is lost. Close it when done.

    One thread at a time. A transaction is tried again for `timeout_s` while the database is locked or away. With
    `lock`, a 64-bit number, a PostgreSQL lets only one process connect; a file is locked with its folder (`lock.py`).

    With `read_only` nothing can be written, and several threads may share this: each transaction has a connection of
    its own. A file is read so that nothing beside it changes either. What is entered into `closing` is closed with it.
    """

    def __init__(self, url: URL, *, timeout_s: float, lock: int | None = None, read_only: bool = False) -> None:
        self.url = url
        self.closing = ExitStack()
        self._timeout_s = timeout_s
        self._lock = lock
        self._read_only = read_only
        self._connected = False
        pool: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": timeout_s}
        try:
            self._engine = create_engine(
                url, connect_args=_connect_args(url, timeout_s), **({"poolclass": NullPool} if read_only else pool)
            )
        except ModuleNotFoundError as error:
            raise ConfigError("A store in PostgreSQL needs its driver: pip install 'agent-rl[postgres]'.") from error
        if not is_sqlite(url):
            event.listen(self._engine, "do_connect", self._connect_postgresql)
            event.listen(self._engine, "connect", self._configure_postgresql)
        elif read_only:
            event.listen(self._engine, "do_connect", self._connect_read_only)
        else:
            event.listen(self._engine, "connect", configure_sqlite)
            event.listen(self._engine, "begin", begin_sqlite)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, and again after an outage: it may already have been committed, so it has to be
        idempotent. Durable on return. Raises `UserError` when the database stays away, is full, owned or damaged.
        """
        deadline = time.monotonic() + self._timeout_s
        delay_s = FIRST_DELAY_S
        while True:
            try:
                with self._engine.begin() as connection:
                    self._connected = True
                    return work(connection)
            except IntegrityError:
                raise
            except _OwnedError as error:
                # After an outage the server may take a while to notice that this process's old connection is gone.
                if not self._connected or time.monotonic() + delay_s > deadline:
                    raise UserError(f"The run in {self.name} is in use by {error}: wait for it, or end it.") from error
            except DBAPIError as error:
                if not self._may_pass(error) or time.monotonic() + delay_s > deadline:
                    raise UserError(self._explain(error)) from error
            time.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def close(self) -> None:
        """Idempotent."""
        self._engine.dispose()
        self.closing.close()

    @property
    def name(self) -> str:
        """For messages: a path, or the URL without its password."""
        return str(self.url.database if is_sqlite(self.url) else self.url.render_as_string(hide_password=True))

    def _connect_read_only(self, _dialect: object, _record: object, _args: object, _options: object) -> object:
        return connect_read_only(Path(self.name), self._timeout_s)

    def _connect_postgresql(
        self, _dialect: object, _record: object, args: list[Any], options: dict[str, Any]
    ) -> object:
        from agent_rl.store.silence import impatient  # needs the driver

        return impatient(self._timeout_s).connect(*args, **options)

    def _configure_postgresql(self, connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
            if self._read_only:
                cursor.execute("SET default_transaction_read_only = on")
            owner = None if self._lock is None else _owner_unless_locked(cursor, self._lock)
        connection.commit()
        if owner is not None:
            connection.close()
            raise _OwnedError(owner)

    def _may_pass(self, error: DBAPIError) -> bool:
        if is_sqlite(self.url):
            return _sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        state = getattr(error.orig, "sqlstate", None)
        # A server that never answered is a wrong address more often than an outage.
        lost = error.connection_invalidated or (state is None and type(error.orig).__name__ == "OperationalError")
        return self._connected and (lost or state in _LOST)

    def _explain(self, error: DBAPIError) -> str:
        reason = " ".join(str(error.orig).split())
        if getattr(error.orig, "sqlstate", None) in _FULL or _sqlite_code(error) == sqlite3.SQLITE_FULL:
            return f"The store {self.name} is full ({reason}): free space, then go on with --resume."
        if self._may_pass(error):
            return (
                f"The store {self.name} could not be used for {self._timeout_s:g} s ({reason}): end what locks it, or "
                "start it again, then go on with --resume."
            )
        return f"The store {self.name} cannot be used: {reason}."


class _OwnedError(Exception):
    """Says who owns the run."""


def _owner_unless_locked(cursor: Any, lock: int) -> str | None:
    """Take the advisory lock until the connection ends, or say who has it."""
    (taken,) = cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock]).fetchone()
    if taken:
        return None
    owner = cursor.execute(_OWNER_OF, [lock]).fetchone()
    return owner[0] if owner else "another process"


def is_sqlite(url: URL) -> bool:
    """Whether it is a file."""
    return url.get_backend_name() == "sqlite"


def _connect_args(url: URL, timeout_s: float) -> dict[str, Any]:
    if is_sqlite(url):
        return {"timeout": timeout_s}
    return {
        "application_name": this_process()[:63],
        "connect_timeout": max(2, min(10, round(timeout_s))),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": round(1000 * timeout_s),
    }


def configure_sqlite(connection: Any, _record: object) -> None:
    """Of SQLAlchemy's event `connect`. Transactions are begun by `begin_sqlite`, so that they cover all statements."""
    connection.isolation_level = None
    connection.text_factory = _damaged_or_not
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def connect_read_only(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A file in WAL mode is read through its `-wal` file while that exists. Without one nobody writes, and the file is
    opened as immutable: SQLite would otherwise leave files of its own beside it.
    """
    in_use = path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.resolve().as_uri()}?mode=ro{'' if in_use else '&immutable=1'}"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, check_same_thread=False)
    connection.text_factory = _damaged_or_not
    return connection


def begin_sqlite(connection: Connection) -> None:
    """Of SQLAlchemy's event `begin`. Python's driver by itself begins before the first insert."""
    connection.exec_driver_sql("BEGIN")


def _damaged_or_not(text: bytes) -> str:
    """A text that lost a bit must not hide the others: its checksum tells."""
    return text.decode("utf-8", "surrogateescape")


def _sqlite_code(error: DBAPIError) -> int | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # the upper bits say more than is asked
