"""What sandboxes cost: warm leases, actions in live sessions, cold starts, forks, many at once; and a tool's checks.

Beside each figure stands its limit, measured here and now: for an action, one round trip over a socket; for a start,
the same bare interpreter, in the same kind of isolation, that does nothing at all; for a fork, which waits for no
interpreter, the start of `true`. A start is over when the host may go on, so the first call is timed with it too.
One process per call is the usual way to run a tool's code, and what a live session is compared with, interleaved.

    python benchmarks/sandboxes.py [--image IMAGE]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel

from agent_rl import tool
from agent_rl.concurrency import collect
from agent_rl.sandbox import Sandbox, SandboxConfig, get_sandbox, open_sandbox
from agent_rl_sandboxes.pool import SandboxPool
from agent_rl_sandboxes.supervised import find_python

ACTIONS, STARTS, MANY = 400, 30, 64


async def timed(action: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await action()
    return time.perf_counter() - began


def show(what: str, seconds: float, unit: str, goal: str, limit: float, is_what: str) -> None:
    scale = {"us": 1e6, "ms": 1e3}[unit]
    value = f"{seconds * scale:>9.1f} {unit}   goal {goal:<10} limit {limit * scale:.1f} {unit} ({is_what})"
    print(f"{what:<64}{value}", flush=True)


def python_of(kind: str) -> str:
    """The interpreter that sandboxes have, which is not always the first in PATH."""
    return find_python(SandboxConfig(kind=kind)) or sys.executable


def bare_start(kind: str) -> float:
    """The time that a bare interpreter takes where sandboxes of this kind run."""
    isolation = ["bwrap", "--unshare-all", "--ro-bind", "/", "/"] if kind == "bubblewrap" else []
    return process_time([*isolation, python_of(kind), "-I", "-S", "-c", "import os; os._exit(0)"])


def process_time(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def round_trip() -> float:
    """Median of one byte to another thread's socket and back: what no session can be quicker than."""
    here, there = socket.socketpair()

    def echo() -> None:
        while data := there.recv(1):
            there.send(data)

    thread = threading.Thread(target=echo)
    thread.start()
    times: list[float] = []
    for _ in range(2000):
        began = time.perf_counter()
        here.send(b"x")
        here.recv(1)
        times.append(time.perf_counter() - began)
    here.shutdown(socket.SHUT_WR)
    thread.join()
    here.close()
    there.close()
    return statistics.median(times)


async def actions(kind: str, sandbox: Sandbox) -> None:
    """An action in a live session against a process of its own, interleaved."""
    python, shell = sandbox.python(), sandbox.shell()
    for _ in range(20):
        await python.run("x = 1")
        await shell.run("x=1")
    in_python: list[float] = []
    in_shell: list[float] = []
    in_process: list[float] = []
    for index in range(ACTIONS):
        in_python.append(await timed(lambda: python.run("x += 1")))
        in_shell.append(await timed(lambda: shell.run("x=2")))
        if index % 10 == 0:
            in_process.append(await timed(lambda: sandbox.exec(["python3", "-c", "x = 1"])))
    own, limit = statistics.median(in_process), round_trip()
    session = statistics.median(in_python)
    show(f"{kind}: action in a live Python session, median", session, "us", "< 200", limit, "a socket and back")
    show(
        f"{kind}: action in a live shell session",
        statistics.median(in_shell),
        "us",
        "< 200",
        limit,
        "a socket and back",
    )
    what = f"{kind}: the same in a process of its own, {own / session:.0f}x (goal: 20x)"
    show(what, own, "ms", "", process_time([python_of(kind), "-c", "x = 1"]), "without a sandbox")


async def starts(kind: str, config: SandboxConfig) -> None:
    cold: list[float] = []
    with_call: list[float] = []
    bare: list[float] = []
    async with await open_sandbox(config):  # the launcher is there, as in a run
        for _ in range(STARTS):
            began = time.perf_counter()
            sandbox = await open_sandbox(config)
            cold.append(time.perf_counter() - began)
            await sandbox.exec(["true"])
            with_call.append(time.perf_counter() - began)
            await sandbox.close()
            bare.append(bare_start(kind))
    limit, goal = statistics.median(bare), {"bubblewrap": "< 15"}.get(kind, "")
    show(f"{kind}: cold start, median", statistics.median(cold), "ms", goal, limit, "a bare interpreter's")
    show(f"{kind}: cold start and first command", statistics.median(with_call), "ms", "", limit, "a bare interpreter's")


async def warm(kind: str, config: SandboxConfig) -> None:
    async with SandboxPool(config, warm=8, max_open=16) as pool:
        while pool.ready < 8:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        waits: list[float] = []
        switches: list[float] = []
        for _ in range(100):
            while not pool.ready:  # noqa: ASYNC110
                await anyio.sleep(0.005)
            switches.append(await timed(lambda: anyio.lowlevel.checkpoint()))
            began = time.perf_counter()
            lease = await pool.acquire()
            waits.append(time.perf_counter() - began)
            await lease.close()
    limit = statistics.median(switches)
    show(f"{kind}: warm lease, 99th percentile of 100", sorted(waits)[98], "ms", "< 2", limit, "a switch of tasks")


async def many(kind: str, config: SandboxConfig) -> None:
    async def one() -> None:
        async with await open_sandbox(config) as sandbox:
            result = await sandbox.python().run("sum(range(1000))")
            assert result.value == "499500", result

    began = time.perf_counter()
    await collect([one] * MANY)
    took = time.perf_counter() - began
    limit = MANY * bare_start(kind) / (os.cpu_count() or 1)
    show(f"{kind}: {MANY} at once, each with a Python session", took, "ms", "no error", limit, "bare interpreters")


async def forks(kind: str, config: SandboxConfig, tree: Path) -> None:
    times: list[float] = []
    with_read: list[float] = []
    limits: list[tuple[float, float]] = []
    async with await open_sandbox(config.model_copy(update={"base": tree, "disk_mb": 512})) as sandbox:
        for _ in range(10):
            began = time.perf_counter()
            fork = await sandbox.fork()
            times.append(time.perf_counter() - began)
            assert await fork.read("d0/f0") == (tree / "d0/f0").read_bytes()
            with_read.append(time.perf_counter() - began)
            await fork.close()
            limits.append((process_time(["true"]), bare_start(kind)))
    start, interpreter = map(statistics.median, zip(*limits, strict=True))
    show(
        f"{kind}: fork of 200 MB, 2,000 files, median", statistics.median(times), "ms", "< 10", start, "start of `true`"
    )
    what = f"{kind}: the same until its first file is read"
    show(what, statistics.median(with_read), "ms", "", interpreter, "a bare interpreter's start")


def make_tree(folder: Path) -> None:
    for d in range(20):
        (folder / f"d{d}").mkdir()
        for f in range(100):
            (folder / f"d{d}/f{f}").write_bytes(os.urandom(100_000))


def tool_checks() -> None:
    @tool
    async def example(path: str, first_line: int = 1, tags: list[str] | None = None) -> str:
        """An example.

        Args:
            path: A file.
            first_line: A line.
            tags: Words.
        """
        return path

    arguments = {"path": "a", "first_line": 3, "tags": ["x", "y"]}
    text, took = json.dumps(arguments), list[float]()
    for check in (lambda: example.check(arguments), lambda: json.loads(text)):
        began = time.process_time()
        for _ in range(20_000):
            check()
        took.append((time.process_time() - began) / 20_000)
    show("tool: validation of a call, mean", took[0], "us", "< 50", took[1], "parsing its JSON")


async def measure(image: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_tree(Path(folder))
        for kind in ("process", "bubblewrap", "docker"):
            config = SandboxConfig(kind=kind, image=image if kind == "docker" else "", memory_mb=256, disk_mb=64)
            if problem := get_sandbox(kind).unavailable(config):
                print(f"{kind}: not measured: {problem}")
                continue
            async with await open_sandbox(config) as sandbox:
                await actions(kind, sandbox)
            await starts(kind, config)
            if kind != "docker":
                await warm(kind, config)
                await many(kind, config)
                await forks(kind, config, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", default="", help="an image with python3, to measure Docker with")
    logging.disable(logging.INFO)
    assert shutil.which("python3")
    anyio.run(measure, parser.parse_args().image)
    tool_checks()


if __name__ == "__main__":
    main()
