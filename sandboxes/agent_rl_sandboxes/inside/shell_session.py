"""A persistent bash as a worker of the keeper's.

Bash is interactive in one respect only: an interrupt brings it back to its next line. Each run is two lines on its own
standard input: one that reads the code from a file in memory and evaluates it, with /dev/null as standard input, and
one that reports the exit code on a descriptor of its own. Background jobs hold neither up.
"""

from __future__ import annotations

import fcntl
import os

from command import BASH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CODE_FD, _REPLY_FD = 200, 201
_SET_UP = b"set +m +H; PS1= PS2= PROMPT_COMMAND=; unset HISTFILE; exec 2>&202 202>&-\n"
_RUN = b'read -rd "" <&200; eval "$REPLY" </dev/null\necho $? >&201\n'


class ShellWorker:
    """The shell. What it defines, where it stands and what it started last until it ends."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        own, replies = os.pipe()
        self.replies: int | None = own
        self._own = own
        lines, self._lines = os.pipe()
        self._code = os.memfd_create("code")
        fds = {0: lines, 1: stdout, _CODE_FD: self._code, _REPLY_FD: replies, 202: stderr}
        self.stdin: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _become_bash(fds, settings)
        for fd in (lines, stdout, stderr, replies):
            os.close(fd)
        os.write(self._lines, _SET_UP)

    def submit(self, code: bytes) -> None:
        """Hand bash the code. A NUL byte ends it, as it would in a script."""
        os.ftruncate(self._code, 0)
        os.pwrite(self._code, code.replace(b"\0", b""), 0)
        os.lseek(self._code, 0, os.SEEK_SET)
        os.write(self._lines, _RUN)

    def reply(self) -> dict[str, Any]:
        """The exit code."""
        return {"exit_code": int(os.read(self._own, 64).split()[-1]), "ended": False}


def _become_bash(fds: dict[int, int], settings: dict[str, Any]) -> None:
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        moved = {target: _above(fd) for target, fd in {2: null, **fds}.items()}
        for target, fd in moved.items():
            os.dup2(fd, target)
        os.chdir(settings["workspace"])
        os.execve(BASH, ["bash", "--norc", "--noprofile", "--noediting", "-i"], settings["environment"])
    finally:
        os._exit(127)


def _above(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 210)
