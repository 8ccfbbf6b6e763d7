"""Run folders and their journals, opened so that nothing in them changes, also while training writes to them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from agent_rl.errors import UserError, not_found
from agent_rl.store.identity import RUN_FILE
from agent_rl.store.journal import Journal
from agent_rl.store.metrics import JSONL
from agent_rl.store.opening import STORE, EmptyRunError, open_journal
from agent_rl.store.run_folder import CONFIG_FILE

_TIMEOUT_S = 5.0
_MARKS = (CONFIG_FILE, STORE, JSONL, RUN_FILE)  # a folder with one of them is a run


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run under the name that the viewer's addresses have for it."""

    id: str
    path: Path


class Library:
    """The runs that may be looked at: run folders, and folders that hold some, at most one level further down.

    `store` is the URL of their PostgreSQL with its password, where that is needed. New runs are found whenever `runs`
    is asked. Journals stay open between questions; `close` closes them.
    """

    def __init__(self, paths: Sequence[Path], store: str = "") -> None:
        self._paths = list(paths)
        self._store = store
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
        try:
            return open_journal(folder, store=self._store, timeout_s=_TIMEOUT_S, read_only=True)
        except EmptyRunError:
            return None
        except SQLAlchemyError as error:  # an upgrade of something that only looks like a store
            raise UserError(f"The store of {folder} cannot be read: {error}.") from error

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
