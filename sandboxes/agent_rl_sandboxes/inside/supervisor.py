"""The first process inside a sandbox: hands each stream of the host's to a keeper of its own.

Its argument is JSON: the environment and workspace of programs, and the limits that it takes on itself and thereby
gives to all of them. It holds nothing that an untrusted program could want, and cannot be read or traced by one.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import socket
import sys
from functools import partial

import inetd
import keeper
import processes
from frames import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Serve the socket that is descriptor 3."""
    settings = json.loads(sys.argv[1])
    processes.hide_memory()
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for name, value in settings["limits"].items():
        which = getattr(resource, name)
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    os.umask(0o022)
    _make_folders(settings["folders"])
    programs = {name: partial(_keep, name, settings) for name in ("exec", "python", "shell", "files")}
    control = socket.socket(fileno=3)
    control.set_inheritable(False)
    modules = ("command", "files", "shell_session")
    inetd.serve(control, programs, [*(partial(importlib.import_module, name) for name in modules), _prepare_python])


def _make_folders(paths: list[str]) -> None:
    """In here, where links that programs left behind lead nowhere else. Without one, its programs do not start."""
    for path in paths:
        try:
            os.makedirs(path, exist_ok=True)
        except OSError:
            pass


def _keep(program: str, settings: dict[str, Any], fds: list[int]) -> None:
    if program == "python":
        _prepare_python()
    keeper.keep(program, Stream(fds[0]), settings)


def _prepare_python() -> None:
    """What Python sessions need, once for all of them."""
    if "site" not in sys.modules:
        import site

        site.main()
    importlib.import_module("python_session")
