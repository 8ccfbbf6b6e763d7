"""A folder of things that are made once: locked while they are made, whole when they are there, whoever was killed.

Knows nothing of what they are. Several processes may share one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from agent_rl.errors import EnvironmentFailure

_LOOK_S = 0.02
_READY = ".ready"


def key_of(*parts: str) -> str:
    """A short name for what these texts describe."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


class Cache:
    """Folders by kind and key. Blocks: call it in a thread."""

    def __init__(self, root: Path, timeout_s: float) -> None:
        self.root = root
        self._timeout_s = timeout_s

    def moved(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder; where there is none, `make` fills an empty one, which is then put in its place."""
        folder = self.root / kind / key
        if not folder.exists():
            with self._lock(kind, key):
                if not folder.exists():
                    part = folder.with_name(f"{key}.part")
                    shutil.rmtree(part, ignore_errors=True)
                    part.mkdir(parents=True)
                    make(part)
                    part.rename(folder)
        return folder

    def in_place(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The same for what cannot be moved: `make` fills the folder itself, and is called again if it did not end."""
        folder = self.root / kind / key
        if not (folder / _READY).exists():
            with self._lock(kind, key):
                if not (folder / _READY).exists():
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir(parents=True)
                    make(folder)
                    (folder / _READY).touch()
        return folder

    @contextmanager
    def _lock(self, kind: str, key: str) -> Generator[None, None, None]:
        """Only one process makes a thing. Raises `EnvironmentFailure` when another takes too long."""
        path = self.root / "locks" / f"{kind}-{key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._timeout_s
        with path.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        message = f"Another process has been preparing {kind} {key} for {self._timeout_s:g} s."
                        raise EnvironmentFailure(message, kind="timeout", stage="prepare") from None
                    time.sleep(_LOOK_S)
            yield


def user_root(name: str) -> Path:
    """Where this user's things of a name are kept, if nobody says where.

    Sandboxes that root starts run as other users, who cannot look into root's home.
    """
    if os.getuid() == 0:
        return Path("/var/cache/agent-rl") / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-rl" / name
