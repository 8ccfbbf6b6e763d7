"""Untrusted programs try to get out, and to take the host along. `HOLDS` says which backend keeps which attempt in.

The same attempts run in the `process` sandbox, which must not claim to stop them: there each succeeds.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import anyio
import pytest

pytestmark = pytest.mark.anyio
SYS = {"bubblewrap": "/sys", "process": "/sys", "docker": ""}  # a container has it, read-only: runtimes look there
HOLDS = {"bubblewrap": True, "docker": True, "process": False}  # whether the attempts of this file are in vain


@pytest.fixture
def secret(public_path: Path):
    """A grader's answer file, as open as a careless grader leaves it."""
    path = public_path / "answers.txt"
    path.write_text("the answer is 42\n")
    path.chmod(0o666)
    return path


@pytest.fixture
def grader():
    """A process of the host's that holds an answer in its environment."""
    process = subprocess.Popen(["sleep", "60"], env={"ANSWER": "is 42", "PATH": os.environ["PATH"]})
    yield process
    process.kill()
    process.wait()


async def test_reading_host_files(opened, kind, secret):
    async with await opened() as sandbox:
        for path in (str(secret), f"/proc/self/root{secret}", f"/proc/1/root{secret}", f"/proc/1/cwd{secret}"):
            result = await sandbox.exec(["cat", path])
            assert not result.stdout if HOLDS[kind] else result.stdout or "/1/" in path, path
        found = await sandbox.exec(f"cat /etc/shadow; ls -A /root /mnt /srv /var /boot {SYS[kind]}")
        assert (found.stdout == b"") is HOLDS[kind]


async def test_writing_host_files(opened, kind, secret):
    async with await opened() as sandbox:
        await sandbox.exec(f"echo 'the answer is 43' > {secret}; echo x > {secret.parent}/planted")
        assert (secret.read_text() == "the answer is 42\n") is HOLDS[kind]
        assert (not (secret.parent / "planted").exists()) is HOLDS[kind]


async def test_the_system_is_read_only(opened, kind):
    if not HOLDS[kind]:
        pytest.skip("process: it would really write to this machine's system")
    script = (
        "for d in / /usr /usr/bin /etc /dev /run /run/agent-rl /proc /proc/sys/kernel /home /lib; do touch $d/x; done"
    )
    async with await opened() as sandbox:
        result = await sandbox.exec(script + "; echo 1 > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger")
        assert result.stderr.count(b"\n") == 13, result.output


async def test_loopback_and_abstract_sockets_of_the_host(opened, kind):
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0agent-rl-test-{os.getpid()}")
        for server in (tcp, abstract):
            server.listen(8)
        script = f"""
import socket
def reach(family, address):
    with socket.socket(family) as s:
        s.settimeout(2)
        try:
            s.connect(address); return True
        except OSError:
            return False
print(
    reach(socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]})),
    reach(socket.AF_UNIX, "\\0agent-rl-test-{os.getpid()}"),
)
"""
        async with await opened() as sandbox:
            result = await sandbox.python().run(script)
            assert result.stdout == f"{not HOLDS[kind]} {not HOLDS[kind]}\n", result
        if kind == "docker":
            return  # it has no other network to give
        async with await opened(network=True) as sandbox:
            assert (await sandbox.python().run(script)).stdout.startswith("True"), (
                "a network that is asked for is there"
            )


async def test_seeing_and_ending_the_graders_process(opened, kind, grader):
    async with await opened() as sandbox:
        seen = await sandbox.exec(f"cat /proc/{grader.pid}/environ; ls /proc | grep -x {grader.pid}")
        assert (seen.stdout == b"") is HOLDS[kind], seen
        await sandbox.exec(f"kill -9 {grader.pid}")
        await anyio.sleep(0.05)
        assert (grader.poll() is None) is HOLDS[kind]


async def test_the_hosts_environment_is_invisible(opened, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")
    async with await opened(environment={"GIVEN": "yes"}) as sandbox:
        result = await sandbox.exec("env; cat /proc/$$/environ /proc/$PPID/environ; env | grep -c GIVEN")
        shells = await sandbox.shell().run("env")
        pythons = await sandbox.python().run("import os; print(dict(os.environ))")
        assert "GIVEN" in result.output, result
        for text in (result.output, shells.output, pythons.output):
            assert "GIVEN" in text
            assert "sk-secret" not in text


async def test_the_first_process_cannot_be_touched(opened, kind):
    if not HOLDS[kind]:
        pytest.skip("process: what supervises is one of our processes, and process 1 is this machine's")
    async with await opened() as sandbox:
        result = await sandbox.exec(
            "kill -9 1; kill -STOP 1; cat /proc/1/environ /proc/1/mem /proc/1/maps; ls /proc/1/fd /proc/1/root"
        )
        assert result.stdout == b"", result
        assert (await sandbox.exec("echo alive")).stdout == b"alive\n"


async def test_killing_ones_own_keeper_is_data(opened):
    """The keeper is a process of the same user: killed or stopped, it is missed and what it kept is ended."""
    async with await opened() as sandbox:
        killed = await sandbox.exec("setsid sleep 77 & kill -9 $PPID; sleep 60")
        assert killed.exit_code is None
        lost = await sandbox.python().run("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
        assert lost.state_lost
        late = await sandbox.exec("setsid sleep 78 & exec sleep 60", timeout_s=0.1)
        assert late.timed_out
        await anyio.sleep(0.1)
        assert "sleep 7" not in (await sandbox.exec("ps ax -o args")).output.replace("ps ax", "")


async def test_privileges_cannot_be_gained(opened, kind):
    script = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *arguments):
    return getattr(libc, name)(*arguments) == -1
print(*[refused(*call) for call in (
    ("setuid", 0), ("setgid", 0), ("unshare", 0x10000000), ("unshare", 0x20000), ("setns", 0, 0),
    ("mount", b"none", b"/tmp", b"tmpfs", 0, None), ("ptrace", 0, 0, 0, 0), ("chroot", b"/tmp"),
    ("syscall", 321, 0, 0, 0), ("syscall", 323, 0), ("syscall", 425, 8, 0), ("syscall", 250, 0, 0, 0),
    ("syscall", 298, 0, 0, 0, 0, 0),
    ("syscall", 56, 0x10000000 | 17, 0, 0, 0, 0), ("syscall", 435, 0, 0), ("socket", 40, 1, 0),
    ("syscall", 246, 0, 0, 0, 0),
)])
"""
    if not HOLDS[kind]:
        pytest.skip("process: it would really mount and unshare")
    async with await opened() as sandbox:
        result = await sandbox.python().run(script)
        assert result.stdout.split() == ["True"] * 17, result
        status = (
            await sandbox.exec("grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; id -u")
        ).output.split()
        assert status[0:2] + status[4:8] == "CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2".split()
        if kind == "bubblewrap":
            assert status[2:4] + status[8:] == ["CapBnd:", "0000000000000000", "1000"]
        else:  # the first process may kill, which without new privileges is of no use to others
            assert status[2:4] == ["CapBnd:", "0000000000000020"]
            assert int(status[8]) >= 1_000_000_000
        unprivileged = await sandbox.exec("unshare -U true; mount -t tmpfs x /tmp; su -c id; chmod u+s /usr/bin/env")
        assert b"uid=0" not in unprivileged.stdout


async def test_programs_are_no_user_of_the_host(opened, kind, tmp_path):
    """Seen from the host, files are owned by a user that owns nothing else; without root, by ourselves."""
    async with await opened() as sandbox:
        await sandbox.exec("sleep 20 & echo $!; sleep 0.5", timeout_s=5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sandbox.exec, "exec -a agent-rl-uid-probe sleep 5")
            with anyio.fail_after(10):
                while not (found := _pids("^agent-rl-uid-probe")):
                    await anyio.sleep(0.05)
            (pid,) = found
            owner = Path(f"/proc/{pid}").stat().st_uid
            tasks.cancel_scope.cancel()
    if os.getuid() == 0:
        assert (owner > 1_000_000_000) is HOLDS[kind]
    else:
        assert owner == os.getuid()


def _pids(pattern: str) -> list[int]:
    return [
        int(pid) for pid in subprocess.run(["pgrep", "-f", pattern], capture_output=True, check=False).stdout.split()
    ]


async def test_symlinks_do_not_lead_the_host_astray(opened, kind, secret):
    """The host's own file operations go nowhere that a program inside could not go; in a folder, never out of it."""
    async with await opened() as sandbox:
        await sandbox.exec(
            f"ln -s {secret} file; ln -s {secret.parent} folder; ln -s ../../../../../.. up; ln -s / root"
        )
        for path in ("file", "folder/answers.txt", f"up{secret}", f"root{secret}", str(secret), f"../../../..{secret}"):
            with pytest.raises(OSError):  # noqa: PT011  # which one is the kernel's choice
                await sandbox.read(path)
        with pytest.raises(OSError):  # noqa: PT011
            await sandbox.list("folder")
        for path in ("file", "folder/planted", "folder/made/planted", f"../../..{secret}"):
            try:
                await sandbox.write(path, b"43")
            except OSError:
                continue  # or it was written inside, where such folders may be made
    assert secret.read_text() == "the answer is 42\n"
    assert [path.name for path in secret.parent.iterdir()] == ["answers.txt"]


async def test_symlink_race(opened, secret):
    """A folder that is forever replaced by a link to the host's, and back."""
    race = f"""
import os, threading
def swap():
    while True:
        try:
            os.mkdir("d"); open("d/answers.txt", "w").write("inside"); os.rename("d", "e")
            os.symlink("{secret.parent}", "d"); os.unlink("d"); os.unlink("e/answers.txt"); os.rmdir("e")
        except OSError: pass
threading.Thread(target=swap, daemon=True).start()
"""
    async with await opened() as sandbox:
        await sandbox.python().run(race)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            try:
                assert await sandbox.read("d/answers.txt") in (b"", b"inside")
                await sandbox.write("d/planted", b"x")
            except OSError:
                pass
    assert [path.name for path in secret.parent.iterdir()] == ["answers.txt"]


async def test_terminals_and_signals_of_the_host(opened):
    """No controlling terminal to push characters into, and our process group is not theirs."""
    async with await opened() as sandbox:
        result = await sandbox.exec("ps -o tty= -p $$; kill -INT 0; true")
        assert b"pts" not in result.stdout
        assert (await sandbox.exec("tty < /dev/tty")).exit_code != 0
    assert signal.getsignal(signal.SIGINT) is not None
