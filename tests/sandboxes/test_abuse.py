"""Untrusted programs use more than their share of processes, memory, disk, time. The sandbox and the host go on."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from agent_rl.errors import SandboxFailure
from tests.sandboxes.kinds import supervised_only

pytestmark = pytest.mark.anyio


def enforced(sandbox, name: str) -> bool:
    """Whether a limit is at work: `process` has control groups, but does not promise anything."""
    group = {"processes": "pids"}.get(name, name)
    return getattr(sandbox.guarantees, name).enforced or group in getattr(sandbox, "_enforced", ())


async def test_fork_bomb(opened):
    async with await opened(max_processes=40) as sandbox:
        if not enforced(sandbox, "processes"):
            pytest.skip("no control groups for processes here")
        started = time.monotonic()
        result = await sandbox.exec("bomb() { bomb | bomb & bomb; }; bomb", timeout_s=0.5)
        assert result.timed_out or result.exit_code != 0
        assert time.monotonic() - started < 8
        assert (await sandbox.exec("echo alive")).stdout == b"alive\n"
        # `process` sees the whole machine: only what the bomb left is counted, and not the one who counts.
        assert int((await sandbox.exec("ps ax | grep -c '[b]omb() {'")).stdout) <= 40


async def test_memory_bomb(opened):
    async with await opened(memory_mb=128) as sandbox:
        if not enforced(sandbox, "memory"):
            pytest.skip("no control groups for memory here")
        session = sandbox.python()
        await session.run("x = 1")
        result = await session.run("x = bytearray(400 * 2**20)")
        assert result.state_lost or "MemoryError" in (result.error or "")
        many = "for i in 1 2 3 4; do python3 -c 'x = bytearray(90 * 2**20); import time; time.sleep(2)' & done; wait"
        await sandbox.exec(many, timeout_s=1)
        assert (await sandbox.exec("echo alive")).stdout == b"alive\n", "the sandbox outlives it"


async def test_disk_filling(opened):
    async with await opened(disk_mb=16, max_file_mb=8) as sandbox:
        if getattr(sandbox, "_storage", "") == "folder":
            pytest.skip("no mounts here: only the size of each file is limited")
        one = await sandbox.exec("head -c 12M /dev/zero > one; stat -c %s one")
        assert int(one.stdout) == 8 * 2**20
        script = "for i in 1 2 3 4 5; do for d in . $HOME $TMPDIR; do head -c 4M /dev/zero > $d/f$i; done; done"
        full = await sandbox.exec(script)
        assert b"No space left" in full.stderr
        with pytest.raises(OSError, match="No space left"):
            await sandbox.write("more", bytes(2**20))
        assert (await sandbox.exec("rm -f f* one; echo alive")).stdout == b"alive\n"


async def test_processor_hogs_are_held_to_their_share(opened):
    async with await opened(cpus=0.25) as sandbox:
        if not enforced(sandbox, "cpu"):
            pytest.skip("no control groups for processors here")
        result = await sandbox.exec("timeout 0.6 sh -c 'while :; do :; done'; cat /proc/self/stat > /dev/null; times")
        spent = sum(float(part[:-1].split("m")[1]) for part in result.stdout.split()[2:] for part in [part.decode()])
        assert spent < 0.3, result.output


async def test_outliving_a_command(opened):
    """Twice forked, in a session of its own, ignoring all signals, holding the pipes: gone when the command is."""
    script = "(setsid sh -c 'trap \"\" TERM INT HUP; exec -a agent-rl-daemon sleep 50' & ) & sleep 0.1; echo done"
    async with await opened() as sandbox:
        assert (await sandbox.exec(["bash", "-c", script])).stdout == b"done\n"
        assert b"agent-rl-daemon" not in (await sandbox.exec("ps ax -o args | grep -v grep")).stdout
        survivor = await sandbox.shell().run("(setsid bash -c 'exec -a agent-rl-late sleep 50' &) ; echo ok")
        assert survivor.stdout == "ok\n"
    left = subprocess.run(["pgrep", "-f", "^agent-rl-(late|daemon)"], capture_output=True, check=False)
    assert left.stdout == b"", "what a sandbox started must end with it"


@supervised_only
async def test_nothing_is_left(opened, monkeypatch: pytest.MonkeyPatch):
    """No process, mount, control group, folder or descriptor outlives a sandbox, however it ended."""
    name = f"agent-rl-sandbox-of-{os.getpid()}-"  # other tests run at the same time
    make = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: make(prefix=name))

    def left() -> list[str]:
        groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/agent-rl-{name}*")]
        folders = [str(path) for path in Path(tempfile.gettempdir()).glob(f"{name}*")]
        mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if name in line]
        return groups + folders + mounts

    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        async with await opened() as sandbox, await sandbox.fork() as child:
            assert left()
            await child.python().run("import os; os.system('sleep 60 &')")
            await child.exec("mkdir -p a/b; chmod 000 a/b; chmod 000 a")
    with anyio.move_on_after(0.05):
        async with await opened():
            await anyio.sleep(1)
    with anyio.move_on_after(0.3):
        async with await opened() as sandbox:
            await sandbox.exec("sleep 5")
    assert left() == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the event loop may keep one


@supervised_only
async def test_a_host_that_is_killed_leaves_nothing(kind, tmp_path):
    program = tmp_path / "host.py"
    program.write_text(
        "import anyio, os, sys\n"
        "from agent_rl.sandbox import SandboxConfig, open_sandbox\n"
        "async def main():\n"
        f"    sandbox = await open_sandbox(SandboxConfig(kind={kind!r}))\n"
        "    session = sandbox.shell()\n"
        "    await session.run('(exec -a agent-rl-orphan sleep 50) &')\n"
        "    sys.stdout.write(str(sandbox._launcher.root)); sys.stdout.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    path = os.pathsep.join(path for path in sys.path if path)
    result = await anyio.run_process([sys.executable, str(program)], env=os.environ | {"PYTHONPATH": path}, check=False)
    root = Path(result.stdout.decode())
    assert root.name.startswith("agent-rl-sandbox-"), result.stderr
    until = time.monotonic() + 5
    while time.monotonic() < until and (root.exists() or _running("^agent-rl-orphan")):
        await anyio.sleep(0.02)
    assert not root.exists()
    assert not _running("^agent-rl-orphan")
    assert not list(Path("/sys/fs/cgroup").glob(f"*/agent-rl-{root.name}-*"))


def _running(pattern: str) -> bool:
    return subprocess.run(["pgrep", "-f", pattern], capture_output=True, check=False).returncode == 0


@supervised_only
async def test_a_dead_sandbox_is_a_failure(opened):
    """A sandbox whose first process is killed from outside is no result of the program's."""
    async with await opened() as sandbox:
        session = sandbox.python()
        await session.run("x = 1")
        found = subprocess.run(["pgrep", "-f", "import supervisor"], capture_output=True, check=True).stdout.split()
        supervisors = [int(pid) for pid in found if _is_of(sandbox._launcher.root.name, int(pid))]
        assert supervisors
        for pid in supervisors:
            with suppress(ProcessLookupError):  # it ended with another one
                os.kill(pid, 9)
        await anyio.sleep(0.1)
        for call in (sandbox.exec("true"), sandbox.read("x"), session.run("x")):
            with pytest.raises(SandboxFailure, match="died"):
                await call


def _is_of(root: str, pid: int) -> bool:
    """Whether the process was started below the launcher whose folder is called `root`."""
    try:
        while pid > 1:
            if root in Path(f"/proc/{pid}/cmdline").read_text():
                return True
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):  # another test's process, which has ended since it was listed
        pass
    return False
