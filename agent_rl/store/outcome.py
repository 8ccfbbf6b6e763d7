"""`RUN/outcome.json`: how the run ended, by its owner's last word. Without the file it goes on, or was killed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from agent_rl.errors import UserError

OUTCOME = "outcome.json"

End: TypeAlias = Literal["ended", "interrupted", "failed"]

_recording = set[Path]()
"""Folders whose outcome this process will write."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`ended` says nothing of how far it came. `reason` is one sentence, empty where there is nothing to explain."""

    end: End
    reason: str = ""


@contextmanager
def outcome_recorded(run_dir: Path) -> Generator[None]:
    """For the folder's owner: forget the last outcome, and write that of the block. Blocks inside it write nothing."""
    folder = run_dir.resolve()
    if folder in _recording:
        yield
        return
    (folder / OUTCOME).unlink(missing_ok=True)
    _recording.add(folder)
    try:
        yield
    except BaseException as error:
        _write(folder, _outcome_of(error))
        raise
    else:
        _write(folder, Outcome("ended"))
    finally:
        _recording.discard(folder)


def read_outcome(run_dir: Path) -> Outcome | None:
    """`None` where there is none, or none that can be read."""
    try:
        return Outcome(**json.loads((run_dir / OUTCOME).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _outcome_of(error: BaseException) -> Outcome:
    cause = _first_failure(error)
    if cause is None:
        return Outcome("interrupted", "It was interrupted.")
    if isinstance(cause, UserError):
        return Outcome("failed", str(cause))
    return Outcome("failed", f"{type(cause).__name__}: {' '.join(str(cause).split())}".rstrip(": ")[:1000])


def _first_failure(error: BaseException) -> Exception | None:
    """What went wrong, if it was more than an interrupt or a cancellation; task groups wrap it."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_first_failure, error.exceptions)), None)
    return error if isinstance(error, Exception) else None


def _write(folder: Path, outcome: Outcome) -> None:
    unfinished = folder / f"{OUTCOME}.part"
    if folder in _recording:  # nothing in a child that was forked within the block
        with suppress(OSError):  # on a full disk the run looks like one that was killed, and its error is told anyway
            unfinished.write_text(json.dumps(dataclasses.asdict(outcome)) + "\n", encoding="utf-8")
            unfinished.replace(folder / OUTCOME)


os.register_at_fork(after_in_child=_recording.clear)
