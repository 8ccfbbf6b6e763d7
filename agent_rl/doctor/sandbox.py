"""Which guarantees of a sandbox hold on this machine: each is attacked from inside, and the outcome stands beside it.

A probe that succeeds in getting out does no harm: it reads, writes, reaches and signals only what was put there for it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import anyio
from pydantic import Field
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent_rl.config import Config
from agent_rl.errors import SandboxFailure, UserError
from agent_rl.sandbox import Guarantees, Sandbox, SandboxConfig, get_sandbox, open_sandbox, sandboxes

_TOKEN = "agent-rl-doctor-probe"
_DEADLINE_S = 60.0


class SandboxDoctorConfig(Config):
    """Try to break out of the sandboxes of this machine, and tell which guarantees hold."""

    kind: str | None = Field(default=None, description="Backend to examine, or auto; all of them if not given.")
    image: str = Field(default="", description="Image for the backends that need one (docker): its name, or a folder.")
    runtime: str = Field(default="", description="Runtime of those backends, such as runsc (gVisor).")


@dataclass(frozen=True, slots=True)
class Probe:
    """The outcome of one attack: whether the guarantee `name` held, and what was seen."""

    name: str
    held: bool
    seen: str


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What was found about one backend. Without `guarantees` it does not work, for the reason in `problem`."""

    kind: str
    problem: str = ""
    guarantees: Guarantees | None = None
    probes: tuple[Probe, ...] = ()


def run(config: SandboxDoctorConfig) -> list[SandboxReport]:
    """What `agent-rl doctor sandbox` does. Raises `UserError` when the backend that was asked for does not work."""
    if config.kind is None:
        return anyio.run(_all, config)
    report = anyio.run(examine, config.kind, config.image, config.runtime)
    if report.problem:
        raise UserError(f"The sandbox {config.kind!r} does not work on this machine: {report.problem}")
    return [report]


async def _all(config: SandboxDoctorConfig) -> list[SandboxReport]:
    kinds = sorted(sandboxes(), key=lambda kind: -get_sandbox(kind).strength())
    reports: list[SandboxReport] = []
    for kind in kinds:
        options = {"image": config.image, "runtime": config.runtime}
        takes_them = get_sandbox(kind).unavailable(SandboxConfig.model_validate(options)) is None
        reports.append(await examine(kind, **options if takes_them else {}))
    if all(report.problem for report in reports):
        found = "; ".join(f"{report.kind}: {report.problem}" for report in reports) or "none is installed"
        raise UserError(f"No sandbox works on this machine: {found}")
    return reports


async def examine(kind: str, image: str = "", runtime: str = "") -> SandboxReport:
    """Attack sandboxes of a kind, a new one for each attack: some do not survive it."""
    limits = SandboxConfig(memory_mb=192, disk_mb=32, max_file_mb=16, cpus=0.5, max_processes=48)
    config = limits.model_copy(update={"kind": kind, "image": image, "runtime": runtime})
    guarantees: Guarantees | None = None
    probes: list[Probe] = []
    for name, attack in ATTACKS.items():
        try:
            async with await open_sandbox(config) as sandbox:
                guarantees = sandbox.guarantees
                with anyio.fail_after(_DEADLINE_S):
                    held, seen = await attack(sandbox)
        except (UserError, SandboxFailure) as error:
            if guarantees is None:
                return SandboxReport(kind, problem=str(error))
            held, seen = False, f"the sandbox did not survive the attempt: {error}"
        probes.append(Probe(name, held, seen))
    return SandboxReport(kind, guarantees=guarantees, probes=tuple(probes))


def broken_promises(reports: Sequence[SandboxReport]) -> str:
    """One sentence about guarantees that are given and do not hold, or nothing."""
    broken = [
        f"{report.kind}: {probe.name} ({probe.seen})"
        for report in reports
        for probe in report.probes
        if report.guarantees and getattr(report.guarantees, probe.name).enforced and not probe.held
    ]
    return f"Promised but not kept, do not run untrusted programs there: {'; '.join(broken)}." if broken else ""


def to_table(reports: Sequence[SandboxReport]) -> Group:
    """A table for each backend: what it promises, what was seen."""
    tables: list[Table | Text] = []
    for report in reports:
        if report.guarantees is None:
            tables.append(Text(f"{report.kind}: does not work. {report.problem}\n", "yellow"))
            continue
        table = Table(title=Text(report.kind, "bold"), box=box.SIMPLE_HEAD, show_edge=False, title_justify="left")
        for column in ("guarantee", "promised", "probed", "how", "seen"):
            table.add_column(column)
        for probe in report.probes:
            promise = getattr(report.guarantees, probe.name)
            verdict = Text("held", "green") if probe.held else Text("broken", "red" if promise.enforced else "yellow")
            table.add_row(probe.name, "yes" if promise.enforced else "no", verdict, Text(promise.how), Text(probe.seen))
        tables += [table, Text()]
    return Group(*tables)


# --- attacks --------------------------------------------------------------------------------------------------------

Attack: TypeAlias = Callable[[Sandbox], Awaitable[tuple[bool, str]]]


async def _filesystem(sandbox: Sandbox) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101
        secret = Path(folder) / "secret"
        secret.write_text(_TOKEN)
        secret.chmod(0o666)
        result = await sandbox.exec(["sh", "-c", f"cat {secret} /proc/1/root{secret}; echo changed > {secret}"])
        was_read, was_written = _TOKEN in result.output, secret.read_text() != _TOKEN
    done = [word for word, happened in (("read", was_read), ("changed", was_written)) if happened]
    return not done, f"a file of the host's was {' and '.join(done) or 'out of reach'}"


async def _network(sandbox: Sandbox) -> tuple[bool, str]:
    with ExitStack() as opened:
        tcp = opened.enter_context(socket.socket())
        abstract = opened.enter_context(socket.socket(socket.AF_UNIX))
        tcp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0{_TOKEN}-{os.getpid()}")
        tcp.listen(1)
        abstract.listen(1)
        code = f"""
import socket
for family, address in ((2, ("127.0.0.1", {tcp.getsockname()[1]})), (1, "\\0{_TOKEN}-{os.getpid()}")):
    with socket.socket(family) as s:
        s.settimeout(2)
        try:
            s.connect(address)
            print(family)
        except OSError:
            pass
"""
        reached = (await sandbox.python().run(code)).stdout.split()
    return not reached, "a service of the host's was reached" if reached else "no service of the host's was reached"


async def _processes(sandbox: Sandbox) -> tuple[bool, str]:
    with subprocess.Popen(["sleep", "30"], env={"TOKEN": _TOKEN, "PATH": os.defpath}) as victim:  # noqa: ASYNC220
        try:
            seen = await sandbox.exec(f"cat /proc/{victim.pid}/environ; kill {victim.pid}")
            await anyio.sleep(0.05)
            ended = victim.poll() is not None
        finally:
            victim.kill()
    if _TOKEN in seen.output or ended:
        return False, "a process of the host's was read" + (" and ended" if ended else "")
    started = await sandbox.python().run(_FORKS)
    count = int(started.stdout or 0)
    return count < 200, f"the host's were out of reach, {count} of 200 could be started"


_FORKS = """
import os, signal
pids = []
for _ in range(200):
    try:
        pid = os.fork()
    except OSError:
        break
    if not pid:
        signal.pause()
    pids.append(pid)
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
print(len(pids))
"""


async def _memory(sandbox: Sandbox) -> tuple[bool, str]:
    part = "python3 -c 'x = bytearray(150 * 2**20); import time; time.sleep(0.5); print(1, flush=True)' &"
    result = await sandbox.exec(f"{part} {part} {part} wait", timeout_s=20)
    got = 150 * result.stdout.count(b"1")
    return got <= 150, f"{got} of 450 MB could be had, 192 allowed"


async def _disk(sandbox: Sandbox) -> tuple[bool, str]:
    await sandbox.exec("for i in 1 2 3 4 5; do head -c 12M /dev/zero > fill$i; done")
    size = sum(entry.size_bytes for entry in await sandbox.list() if entry.name.startswith("fill")) // 2**20
    await sandbox.exec("rm -f fill*")
    return size <= 32, f"{size} of 60 MB could be written, 32 allowed"


async def _cpu(sandbox: Sandbox) -> tuple[bool, str]:
    code = """
import os, time
def spin():
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pass
    return time.process_time()
before = time.process_time()
print(spin() - before)
"""
    share = float((await sandbox.python().run(code, timeout_s=20)).stdout or 0)
    return share < 0.75, f"{share:.2f} s of processor time in a second, 0.50 allowed"


async def _time(sandbox: Sandbox) -> tuple[bool, str]:
    started = time.monotonic()
    await sandbox.exec("trap '' TERM INT HUP; sleep 30; sleep 30", timeout_s=0.3)
    if time.monotonic() - started > 5:
        return False, "a program was not ended at its deadline"
    parent = "awk '/^PPid/ {print $2}' /proc/$PPID/status"
    try:
        await sandbox.exec(
            f"up=$({parent}); grep -q supervisor /proc/$up/cmdline && kill -9 $up; sleep 0.1", timeout_s=2
        )
        await sandbox.exec("true")
    except SandboxFailure:
        return False, "ended at its deadline, but what watches over it can be killed"
    return True, "ended at its deadline; what watches over it could not be killed"


async def _users(sandbox: Sandbox) -> tuple[bool, str]:
    code = """
import os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
try:
    os.setuid(0)
    root = True
except OSError:
    root = False
print(root, int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1")
"""
    answer = (await sandbox.python().run(code)).stdout.split()
    held = answer == ["False", "True"]
    return held, "no rights, and none to be gained" if held else "it has rights or could gain some"


async def _system_calls(sandbox: Sandbox) -> tuple[bool, str]:
    code = """
import ctypes, os
libc = ctypes.CDLL(None)
def allowed(call):
    pid = os.fork()
    if not pid:
        os._exit(call() == 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(sum([allowed(lambda: libc.unshare(0x10000000)), allowed(lambda: libc.ptrace(0, 0, 0, 0))]))
"""
    count = (await sandbox.python().run(code)).stdout.strip()
    return count == "0", f"{count} of 2 dangerous calls were allowed"


ATTACKS: dict[str, Attack] = {
    "filesystem": _filesystem,
    "network": _network,
    "processes": _processes,
    "memory": _memory,
    "disk": _disk,
    "cpu": _cpu,
    "users": _users,
    "system_calls": _system_calls,
    "time": _time,  # last: it may end the sandbox
}
