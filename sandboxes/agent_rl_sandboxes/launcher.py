"""The launcher: one small process on the host that starts every sandbox of this process and cleans up after it.

It lives in a mount namespace of its own (and a user namespace, where we are an ordinary user), so that no mount is
seen on the host or outlives it. Each sandbox gets a janitor, forked from it: the process that owns the sandbox's
folder, control groups and processes, and removes them when the host closes the stream, or is killed.

A program of its own, standard library only: `python launcher.py ROOT FD`. A large process must not fork, a small one
may; that is why neither trainer nor event loop does any of this itself.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "inside"))

import inetd
import processes
from frames import Stream

sys.path.insert(0, str(Path(__file__).resolve().parent / "outside"))

import janitor
import mounts


def main() -> None:
    """Serve until the host closes the socket."""
    root, control = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    control.set_inheritable(False)
    os.setsid()
    os.umask(0o022)
    processes.adopt_orphans()
    can_mount = mounts.enter_own_namespace() and mounts.try_tmpfs(root)
    root.chmod(0o711)
    _install_programs(root / "programs")
    can_overlay = can_mount and mounts.can_overlay(root)
    place = janitor.Place(root, can_mount, can_overlay)
    control.send(b"{}")
    try:
        inetd.serve(control, {"janitor": partial(_janitor, place)}, [], grace_s=10.0)
    finally:
        if can_mount:
            mounts.unmount(root)
        shutil.rmtree(root, ignore_errors=True)


def _janitor(place: janitor.Place, fds: list[int]) -> None:
    janitor.own_sandbox(place, Stream(fds[0]), fds[1])


def _install_programs(folder: Path) -> None:
    """A copy of the programs that run inside, compiled, readable to whatever user they run as."""
    import py_compile

    shutil.copytree(Path(__file__).resolve().parent / "inside", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in folder.glob("*.py"):
        py_compile.compile(str(path))


if __name__ == "__main__":
    main()
