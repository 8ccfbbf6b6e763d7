"""Finds what was changed in the workspace: reads the manifest on standard input, answers with JSON on standard output.

A file is looked into only if size or time differ. Links are not followed and are no part of a change.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_SKIPPED = {
    ".git",
    ".venv",
    "__pycache__",
    ".pytest_cache",
    ".hypothesis",
    ".mypy_cache",
    ".ruff_cache",
    "node_modules",
}


def changes(manifest: dict[str, list[Any]], max_files: int, max_bytes: int) -> dict[str, Any]:
    """`write`: new content in base64 by path; `delete`: paths; `too_large` when there is more than may be told."""
    write: dict[str, str] = {}
    seen: set[str] = set()
    total = 0
    for path, status in files("."):
        seen.add(path)
        size, time_ns, digest = manifest.get(path, [-1, -1, ""])
        if status.st_size == size and status.st_mtime_ns == time_ns:
            continue
        if total + status.st_size > max_bytes or len(write) >= max_files:
            if size == status.st_size and digest_of(path) == digest:
                continue
            return {"write": {}, "delete": [], "too_large": True}
        try:
            with open(path, "rb") as file:
                data = file.read(max_bytes + 1)
        except OSError:  # made unreadable: as if it were not there
            seen.discard(path)
            continue
        if hashlib.sha1(data).hexdigest() != digest:
            total += len(data)
            write[path] = base64.b64encode(data).decode()
    return {"write": write, "delete": sorted(manifest.keys() - seen), "too_large": False}


def digest_of(path: str) -> str:
    """SHA-1 of a file."""
    digest = hashlib.sha1()
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def files(root: str, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Regular files of a repository, by path, in order; not what git and Python keep there."""
    try:
        entries = sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name in _SKIPPED or entry.name.endswith(".pyc"):
            continue
        try:
            entry.name.encode()
            status = entry.stat(follow_symlinks=False)
        except (OSError, UnicodeEncodeError):
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from files(root, os.path.join(below, entry.name))
        elif stat.S_ISREG(status.st_mode):
            yield os.path.join(below, entry.name), status


if __name__ == "__main__":
    order = json.load(sys.stdin)
    json.dump(changes(order["manifest"], order["max_files"], order["max_bytes"]), sys.stdout)
