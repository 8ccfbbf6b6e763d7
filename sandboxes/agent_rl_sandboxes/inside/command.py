"""One command as a worker of the keeper's: started, fed and awaited; its exit is the answer."""

from __future__ import annotations

import os
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BASH = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"


class CannotStart(Exception):
    """There is no such program or folder: the answer is that of a shell (127, or 126 without permission)."""

    def __init__(self, error: OSError) -> None:
        code = 126 if isinstance(error, PermissionError) else 127
        self.message = f"{error.filename}: {error.strerror}\n".encode(errors="replace")
        self.answer = {
            "stdout_bytes": 0,
            "exit_code": code,
            "timed_out": False,
            "truncated": False,
            "ended": True,
            "duration_s": 0.0,
        }


class Command:
    """The running program. Text is for the shell, a list is for the kernel."""

    replies: int | None = None

    def __init__(self, request: dict[str, Any], has_stdin: bool, settings: dict[str, Any]) -> None:
        command = request["command"]
        try:
            process = subprocess.Popen(
                [BASH, "-c", command] if isinstance(command, str) else command,
                stdin=subprocess.PIPE if has_stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=os.path.join(settings["workspace"], request["cwd"]),
                env={**settings["environment"], **request["env"]},
                start_new_session=True,
            )
        except OSError as error:
            raise CannotStart(error) from error
        except ValueError as error:  # a NUL byte in a name
            raise CannotStart(OSError(0, str(error), "command")) from error
        self._process = process  # keeps the pipes open
        process.returncode = 0  # the keeper collects it: Popen must not
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid, self.stdout, self.stderr = process.pid, process.stdout.fileno(), process.stderr.fileno()
        self.stdin: int | None = None
        if process.stdin:
            self.stdin = os.dup(process.stdin.fileno())
            process.stdin.close()
            os.set_blocking(self.stdin, False)

    def submit(self, code: bytes) -> None:
        """A command gets its input from the keeper."""
        raise NotImplementedError

    def reply(self) -> dict[str, Any]:
        """A command answers by ending."""
        raise NotImplementedError
