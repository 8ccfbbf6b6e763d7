"""A run folder has one owner: the process that trains or evaluates in it. The kernel forgets it when it dies."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from agent_rl.errors import UserError

LOCK = "lock"

_held: dict[Path, tuple[int, int]] = {}
"""Of this process: the descriptor of each lock, and how often it was taken."""


@contextmanager
def owned(run_dir: Path) -> Generator[None]:
    """Own the folder, made if need be, while the block runs. A process may take what it owns again.

    Raises `UserError` that names the owner when another process does.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    folder = run_dir.resolve()
    descriptor, times = _held.get(folder) or (_lock(folder), 0)
    _held[folder] = descriptor, times + 1
    try:
        yield
    finally:
        descriptor, times = _held.pop(folder)
        if times > 1:
            _held[folder] = descriptor, times - 1
        else:
            os.close(descriptor)


def this_process() -> str:
    """For the others."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 1000).decode("utf-8", "replace").strip() or "another process"
        os.close(descriptor)
        raise UserError(
            f"The run folder {str(folder)!r} is in use by {owner}: wait for it, end it, or name another folder."
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{this_process()}\n".encode())
    return descriptor


def _disown() -> None:
    """In a forked child: the lock is its parent's, and must not last longer than that."""
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_disown)
