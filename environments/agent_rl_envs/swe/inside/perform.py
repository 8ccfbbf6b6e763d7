"""Applies an attempt to a clean repository, runs a driver of its tests, and tells what the driver reported.

The driver and all that it imports may be hostile. Its reports come through a pipe, each line led by a word that only
the driver was told, through its standard input; this process cannot be traced, read or written to by it, and what it
prints is kept apart. Job and result are JSON on standard input and output.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_DUMPABLE = 4
_LOOK_S = 0.05  # how often a process is looked after whose children keep its pipes open
_CHUNK = 1 << 16


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Write and delete files, then run the driver."""
    for path in job["delete"]:
        try:
            os.unlink(path)
            os.removedirs(os.path.dirname(path))  # as git does with folders that have nothing left in them
        except OSError:
            pass
    for path, content in job["write"].items():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(content))
    return _Driver(job).run()


class _Driver:
    """The running driver: at most `timeout_s`, at most `max_report_bytes`, the last `tail_bytes` of what it prints."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.word = os.urandom(16).hex().encode()
        self.reports, self.tail = bytearray(), bytearray()

    def run(self) -> dict[str, Any]:
        """Run it to its end."""
        began = time.monotonic()
        reading, writing = os.pipe()
        order = {**self.job["order"], "fd": writing, "word": self.word.decode()}
        given = os.memfd_create("order")
        os.write(given, json.dumps(order).encode())
        os.lseek(given, 0, os.SEEK_SET)
        variables = {**os.environ, **self.job["environment"]}
        try:
            process = subprocess.Popen(
                self.job["command"],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                start_new_session=True,
                env={name: value for name, value in variables.items() if value},
            )
        except OSError as error:
            return {"status": "failed", "code": None, "records": [], "forged": 0, "tail": str(error), "duration_s": 0.0}
        os.close(given)
        os.close(writing)
        assert process.stdout is not None
        status = self._watch(process, reading, process.stdout.fileno(), began + self.job["timeout_s"])
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            pass
        code = process.wait()
        records, forged = self._parsed()
        tail = self.tail[-self.job["tail_bytes"] :].decode("utf-8", "replace")
        duration_s = time.monotonic() - began
        return {
            "status": status,
            "code": code,
            "records": records,
            "forged": forged,
            "tail": tail,
            "duration_s": duration_s,
        }

    def _watch(self, process: subprocess.Popen[bytes], reading: int, printing: int, deadline: float) -> str:
        """Read until it has ended (`done`), is `late`, or reports without end (`flooded`)."""
        open_fds = [reading, printing]
        while True:
            ended = process.poll() is not None
            ready = select.select(open_fds, [], [], 0 if ended else _LOOK_S)[0] if open_fds else []
            for fd in ready:
                data = os.read(fd, _CHUNK)
                if not data:
                    open_fds.remove(fd)
                elif fd == reading:
                    self.reports += data
                else:
                    self.tail += data
                    del self.tail[: -self.job["tail_bytes"]]
            if len(self.reports) > self.job["max_report_bytes"]:
                return "flooded"
            if ended and reading not in ready:
                return "done"
            if time.monotonic() > deadline:
                return "late"
            if not open_fds and not ended:
                time.sleep(0.001)  # it has closed its pipes and is about to exit

    def _parsed(self) -> tuple[list[Any], int]:
        """The reports, and how many lines are not of the driver's."""
        records: list[Any] = []
        forged = 0
        for line in bytes(self.reports).split(b"\n"):
            word, _, text = line.partition(b" ")
            if word == self.word:
                try:
                    records.append(json.loads(text))
                except ValueError:
                    forged += 1
            elif line:
                forged += 1
        return records, forged


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # its descriptors and memory are closed to the driver
    json.dump(perform(json.load(sys.stdin)), sys.stdout)
