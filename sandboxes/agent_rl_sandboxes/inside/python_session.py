"""A live Python interpreter as a worker of the keeper's, forked from one that has all imports done.

Runs code in one namespace, like a notebook: the value of a last expression is its answer, tracebacks show the user's
code only. It writes output to its pipes, as any program would; the keeper cuts what is too much.
"""

from __future__ import annotations

import ast
import fcntl
import linecache
import os
import signal
import socket
import struct
import sys
import traceback
import types

import processes
from frames import Ended, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIZE = struct.Struct("!I")


class PythonWorker:
    """The keeper's side."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        own, theirs = socket.socketpair()
        self.stdin: int | None = None
        self.pid = os.fork()
        if not self.pid:
            try:
                own.close()
                _become_interpreter(theirs.detach(), stdout, stderr, settings)
            finally:
                os._exit(1)
        for fd in (stdout, stderr):
            os.close(fd)
        theirs.close()
        fd = own.detach()
        self.replies: int | None = fd
        self._stream = Stream(fd)

    def submit(self, code: bytes) -> None:
        """Hand the interpreter the code."""
        try:
            self._stream.send({}, code)
        except Ended:
            pass  # it has just died, which the keeper sees

    def reply(self) -> dict[str, Any]:
        """What the interpreter says."""
        return self._stream.receive()[0]


def _become_interpreter(requests: int, stdout: int, stderr: int, settings: dict[str, Any]) -> None:
    """The rest of the forked process's life."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stream = Stream(fcntl.fcntl(requests, fcntl.F_DUPFD_CLOEXEC, 100))
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, target)
    os.closerange(3, stream.fd_in)
    processes.hide_memory(False)
    os.environ.clear()
    os.environ.update(settings["environment"], MPLBACKEND="Agg")
    os.chdir(settings["workspace"])
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    sys.argv, sys.path[:] = [""], ["", *sys.path[1:]]
    for name in ("command", "files", "frames", "inetd", "keeper", "processes", "python_session", "shell_session"):
        sys.modules.pop(name, None)
    Interpreter().serve(stream)


class Interpreter:
    """One namespace, one run after another."""

    def __init__(self) -> None:
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.names = vars(module)
        self.runs = 0
        self.running = False
        self.pid = os.getpid()

    def serve(self, stream: Stream) -> None:
        """Until the keeper hangs up."""
        signal.signal(signal.SIGINT, self._interrupt)
        while True:
            try:
                _, code = stream.receive()
            except Ended:
                return
            reply = self.run(code.decode("utf-8", "replace"))
            if os.getpid() != self.pid:  # code that forked, and went on in the child
                os._exit(0)
            stream.send(reply)

    def run(self, code: str) -> dict[str, Any]:
        """Run `code` and say what came of it."""
        self.runs += 1
        name = f"<run {self.runs}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        value, error = None, None
        try:
            self.running = True
            value = self._value(code, name)
            files = _save_figures(self.runs) if "matplotlib.pyplot" in sys.modules else []
        except BaseException as raised:  # SystemExit and interrupts too: the interpreter stays
            error, files = _explain(raised), []
        finally:
            self.running = False
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:  # replaced or closed by the user's code
                pass
        return {"value": value, "error": error, "files": files, "ended": False, "exit_code": None}

    def _value(self, code: str, name: str) -> str | None:
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        if tree.body:
            exec(compile(tree, name, "exec"), self.names)
        if last is None:
            return None
        value = eval(compile(ast.Expression(last.value), name, "eval"), self.names)  # pyright: ignore
        if value is None:
            return None
        self.names["_"] = value
        return repr(value)

    def _interrupt(self, *_: object) -> None:
        if self.running and os.getpid() == self.pid:
            raise KeyboardInterrupt


def _explain(error: BaseException) -> str:
    """The traceback from the user's first line on."""
    frames = error.__traceback__
    while frames is not None and not frames.tb_frame.f_code.co_filename.startswith("<run "):
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames)).rstrip("\n")
    except BaseException:  # an exception whose own __str__ fails
        return type(error).__name__


def _save_figures(run: int) -> list[str]:
    """Save matplotlib's open figures into the current folder, and close them."""
    pyplot = sys.modules["matplotlib.pyplot"]
    files: list[str] = []
    for number in pyplot.get_fignums():
        files.append(f"figure-{run}-{number}.png")
        pyplot.figure(number).savefig(files[-1])
        pyplot.close(number)
    return files
