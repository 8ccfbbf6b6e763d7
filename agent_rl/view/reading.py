"""Run folders and their journals, opened so that nothing in them changes, also while training writes to them.

A SQLite database in WAL mode is read through its `-wal` file while that exists. Without one nobody writes, and the file
is opened as immutable: SQLite would otherwise leave files of its own beside it.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from agent_rl.errors import UserError, not_found
from agent_rl.store import schema
from agent_rl.store.database import Database
from agent_rl.store.identity import RUN_FILE, read_identity
from agent_rl.store.journal import Journal
from agent_rl.store.metrics import JSONL
from agent_rl.store.opening import STORE, open_journal
from agent_rl.store.run_folder import CONFIG_FILE
from agent_rl.store.versions import upgrade_file, version_of

_BUSY_TIMEOUT_S = 5.0
_MARKS = (CONFIG_FILE, STORE, JSONL, RUN_FILE)  # a folder with one of them is a run


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run under the name that the viewer's addresses have for it."""

    id: str
    path: Path


class Library:
    """The runs that may be looked at: run folders, and folders that hold some, at most one level further down.

    New runs are found whenever `runs` is asked. Journals stay open between questions; `close` closes them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._journals: dict[Path, Journal] = {}
        self._opening = threading.Lock()
        self._owned = ExitStack()

    @property
    def where(self) -> str:
        """What was asked for, in words."""
        return ", ".join(map(str, self._paths))

    def runs(self) -> list[RunFolder]:
        """All runs, those that changed last first."""
        folders = {folder.resolve(): folder for path in self._paths for folder in _run_folders(path)}
        found: dict[str, Path] = {}
        for folder in sorted(folders.values(), key=changed_at, reverse=True):
            found[_unique(folder, found)] = folder
        return [RunFolder(id, folder) for id, folder in found.items()]

    def run(self, id: str) -> RunFolder:
        """Raises `NotFoundError`."""
        runs = {run.id: run for run in self.runs()}
        if id not in runs:
            raise not_found("run", id, runs)
        return runs[id]

    def journal(self, run: RunFolder) -> Journal | None:
        """The journal of a run, None where there are no episodes yet. Several threads may ask it at once.

        Raises `UserError` when it cannot be read.
        """
        with self._opening:
            if run.path not in self._journals and (journal := self._open(run.path)) is not None:
                self._journals[run.path] = self._owned.enter_context(journal)
            return self._journals.get(run.path)

    def _open(self, folder: Path) -> Journal | None:
        identity = read_identity(folder)
        if identity is not None and identity.store:
            return open_journal(folder, timeout_s=_BUSY_TIMEOUT_S)
        try:
            return _read_file(folder / STORE, self._spare) if (folder / STORE).is_file() else None
        except SQLAlchemyError as error:  # an upgrade of something that only looks like a store
            raise UserError(f"{folder / STORE} cannot be read: {error}.") from error

    def _spare(self) -> Path:
        """A folder that lasts as long as this."""
        return Path(self._owned.enter_context(tempfile.TemporaryDirectory(prefix="agent-rl-view-")))

    def close(self) -> None:
        """Idempotent."""
        self._journals.clear()
        self._owned.close()


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file, empty where there is none, or while it is being written."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class _ReadOnly(Database):
    """A SQLite file that is only read. Every question has a connection of its own, so that threads may share this."""

    def __init__(self, path: Path) -> None:
        super().__init__(URL.create("sqlite", database=str(path)), timeout_s=_BUSY_TIMEOUT_S)
        self._engine = create_engine(self.url, poolclass=NullPool, creator=lambda: _connect(path))


def _connect(path: Path) -> sqlite3.Connection:
    in_use = path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.resolve().as_uri()}?mode=ro{'' if in_use else '&immutable=1'}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
    connection.text_factory = _decoded
    return connection


def _decoded(text: bytes) -> str:
    """Damaged text is still shown."""
    return text.decode("utf-8", "surrogateescape")


def _read_file(path: Path, spare: Callable[[], Path]) -> Journal:
    """The journal in a file. One of an earlier version is read from an upgraded copy in `spare()`."""
    database = _ReadOnly(path)
    try:
        version = database.transact(lambda connection: version_of(connection, database.name))
        if version not in (None, schema.VERSION):
            path = _upgraded(path, version, spare())
            database.close()
            database = _ReadOnly(path)
        key = None if version is None else database.transact(_first_run)
        if key is None:
            raise UserError(f"{path} holds no run.")
    except BaseException:
        database.close()
        raise
    return Journal(database, key)


def _first_run(connection: Connection) -> int | None:
    return connection.execute(select(schema.runs.c.key)).scalar()


def _upgraded(path: Path, version: str, spare: Path) -> Path:
    copy = spare / path.name
    with closing(_connect(path)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    upgrade_file(copy, version)
    return copy


def _run_folders(path: Path) -> Iterable[Path]:
    if _is_run(path):
        return [path]
    inside = [folder for folder in path.glob("*") if folder.is_dir()] if path.is_dir() else []
    below = [folder for parent in inside if not _is_run(parent) for folder in parent.glob("*")]
    return filter(_is_run, [*inside, *below])


def _is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in _MARKS)


def changed_at(folder: Path) -> float:
    """When something was written to the run last, in Unix seconds."""
    files = (folder / name for name in (*_MARKS, f"{STORE}-wal"))
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def _unique(folder: Path, taken: dict[str, Path]) -> str:
    """The folder's name, with that of its parent or a number where another run has it."""
    name, parent = folder.resolve().name, folder.resolve().parent.name
    candidates = [name, f"{parent}-{name}", *(f"{name}-{i}" for i in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)
