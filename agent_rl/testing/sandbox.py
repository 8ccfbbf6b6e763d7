"""Conformance kit for sandboxes: `await check_sandbox(factory)` raises `AssertionError` for what is broken.

It checks what every sandbox promises (see `agent_rl.sandbox`), a security boundary or not, through the public contract
alone. What a sandbox holds back is another matter: `agent-rl doctor sandbox` tries that.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import anyio

from agent_rl.concurrency import collect
from agent_rl.errors import SandboxFailure
from agent_rl.sandbox import Sandbox

Factory: TypeAlias = Callable[[], Awaitable[Sandbox]]
Check: TypeAlias = Callable[[Sandbox], Awaitable[None]]
_DEADLINE_S = 120.0


async def check_sandbox(factory: Factory, checks: Sequence[Check] | None = None) -> None:
    """Run every check, or some of `CHECKS`, each in a fresh sandbox from `factory`.

    The sandbox needs `sh` and the usual commands. Raises `AssertionError`; `TimeoutError` when something hangs.
    """
    for check in CHECKS if checks is None else checks:
        with anyio.fail_after(_DEADLINE_S):
            async with await factory() as sandbox:
                await check(sandbox)


# --- files ----------------------------------------------------------------------------------------------------------


async def files(sandbox: Sandbox) -> None:
    """What is written is read, also by programs; folders are made."""
    every_byte = bytes(range(256)) * 3
    await sandbox.write("deep/er/bytes.bin", every_byte)
    assert await sandbox.read("deep/er/bytes.bin") == every_byte, "bytes must survive"
    await sandbox.write("Zoë 日本.txt", "🙂\n".encode())
    await sandbox.write("Zoë 日本.txt", "é".encode())
    assert await sandbox.read(f"{sandbox.workspace}/Zoë 日本.txt") == "é".encode(), "a write must replace the file"
    assert (await sandbox.exec("cat Zoë*")).stdout == "é".encode(), "programs must see what the host writes"
    await sandbox.exec("printf made > made; ln -s made link")
    entries = {entry.name: (entry.kind, entry.size_bytes) for entry in await sandbox.list()}
    expected = {"Zoë 日本.txt": ("file", 2), "deep": ("folder", 0), "made": ("file", 4), "link": ("link", 0)}
    assert entries == expected, f"list gave {entries}"
    await sandbox.write("empty", b"")
    assert await sandbox.read("empty") == b"", "an empty file must read as nothing"


async def missing_files(sandbox: Sandbox) -> None:
    """The errors are those of the sandbox's file system."""
    await sandbox.exec("mkdir folder; mkfifo pipe; printf 12345 > five")
    for operation, path, error in (
        (sandbox.read, "nothing", FileNotFoundError),
        (sandbox.list, "nothing", FileNotFoundError),
        (sandbox.read, "folder", IsADirectoryError),
        (sandbox.list, "five", NotADirectoryError),
        (sandbox.read, "pipe", OSError),
        (sandbox.read, "nul\0byte", OSError),
    ):
        try:
            await operation(path)
        except error:
            continue
        raise AssertionError(f"{operation.__name__}({path!r}) must raise {error.__name__}")
    try:
        await sandbox.read("five", max_bytes=4)
    except OSError:
        return
    raise AssertionError("a file above max_bytes must be refused")


async def big_files(sandbox: Sandbox) -> None:
    """24 MB go in and out."""
    data = b"0123456789abcdef" * (3 * 2**19)
    await sandbox.write("big", data)
    assert await sandbox.read("big") == data, "a big file must survive"


# --- commands -------------------------------------------------------------------------------------------------------


async def commands(sandbox: Sandbox) -> None:
    """Exit codes, both outputs, standard input, environment, folder, no shell for lists."""
    result = await sandbox.exec("echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n"), f"got {result}"
    assert not result.timed_out, "it was in time"
    assert not result.truncated, "nothing was cut"
    listed = await sandbox.exec(["printf", "%s|", "$HOME", "a b", "*"])
    assert listed.stdout == b"$HOME|a b|*|", "a list must reach the program as it is"
    every_byte = bytes(range(256)) * 1000
    assert (await sandbox.exec(["cat"], stdin=every_byte, max_output_bytes=2**20)).stdout == every_byte, "stdin"
    assert (await sandbox.exec("cat")).stdout == b"", "standard input is empty unless given"
    assert (await sandbox.exec("true", stdin=every_byte)).exit_code == 0, "unread input must not matter"
    await sandbox.exec("mkdir -p in/side")
    where = await sandbox.exec("pwd; echo $COLOUR", cwd="in/side", env={"COLOUR": "blau"})
    assert where.stdout.decode() == f"{sandbox.workspace}/in/side\nblau\n", f"got {where.output}"


async def failures_are_data(sandbox: Sandbox) -> None:
    """Signals, unknown programs, missing folders."""
    assert (await sandbox.exec("kill -SEGV $$")).exit_code == 128 + signal.SIGSEGV, "128 + signal"
    assert (await sandbox.exec(["no-such-program"])).exit_code == 127, "an unknown program is exit code 127"
    assert (await sandbox.exec("true", cwd="no-such-folder")).exit_code == 127, "a missing folder is exit code 127"
    await sandbox.write("plain", b"")
    assert (await sandbox.exec(["./plain"])).exit_code == 126, "what cannot be executed is exit code 126"


async def timeouts(sandbox: Sandbox) -> None:
    """A command ends at its deadline, whatever it ignores and whatever holds its pipes."""
    started = time.monotonic()
    result = await sandbox.exec("echo early; trap '' TERM INT HUP; sleep 60 & sleep 60; sleep 60", timeout_s=0.3)
    assert result.timed_out, "a timeout must be told"
    assert result.exit_code is None, "after a timeout there is no exit code"
    assert result.stdout == b"early\n", "what was printed before the deadline is kept"
    assert time.monotonic() - started < 5, "it must end at its deadline"
    left = await sandbox.exec("sleep 60 & echo done")
    assert (left.exit_code, left.stdout) == (0, b"done\n"), "a job in the background must not hold a command up"


async def endless_output(sandbox: Sandbox) -> None:
    """Only the ends of it come back."""
    result = await sandbox.exec("echo first; yes; ", timeout_s=1.5, max_output_bytes=1000)
    assert result.truncated, "cut output must be told"
    assert result.stdout.startswith(b"first\n"), "the first bytes are kept"
    assert len(result.stdout) < 1200, "the limit is a limit"
    both = await sandbox.exec("seq 100000; echo last; seq 100000 >&2", max_output_bytes=1000)
    assert both.exit_code == 0, "a program must not be held up by the limit"
    assert both.stdout.endswith(b"last\n"), "the last bytes are kept"
    exact = await sandbox.exec("printf 1234567890", max_output_bytes=10)
    assert (exact.stdout, exact.truncated) == (b"1234567890", False), "the limit itself fits"


async def concurrency(sandbox: Sandbox) -> None:
    """Calls run side by side."""
    started = time.monotonic()
    results = await collect([lambda n=n: sandbox.exec(f"sleep 1; echo {n}") for n in range(8)])
    assert [result.stdout for result in results] == [b"%d\n" % n for n in range(8)], "each has its own output"
    assert time.monotonic() - started < 6.0, "commands must run side by side"


async def cancellation(sandbox: Sandbox) -> None:
    """A cancelled call ends what it started; the sandbox goes on."""
    with anyio.move_on_after(0.3) as scope:
        await sandbox.exec("while true; do date > alive; sleep 0.02; done")
    assert scope.cancelled_caught, "it must be cancellable"
    with anyio.move_on_after(0.3):
        await sandbox.shell().run("while true; do date > alive; sleep 0.02; done")
    await anyio.sleep(0.3)
    await sandbox.exec("rm -f alive")
    await anyio.sleep(0.1)
    assert not [entry for entry in await sandbox.list() if entry.name == "alive"], "what was cancelled still runs"


async def environment(sandbox: Sandbox) -> None:
    """Programs have a home, and nothing from the host's environment."""
    text = (await sandbox.exec("env")).output
    names = {line.partition("=")[0] for line in text.splitlines()}
    assert {"HOME", "PATH", "TMPDIR"} <= names, f"got {names}"
    assert not {"SSH_AUTH_SOCK", "VIRTUAL_ENV", "PYTHONPATH"} & names, f"the host's environment leaks: {names}"
    written = await sandbox.exec("touch $HOME/a $TMPDIR/b && echo fine")
    assert written.stdout == b"fine\n", "home and the temporary folder must be writable"


# --- sessions -------------------------------------------------------------------------------------------------------


async def python(sandbox: Sandbox) -> None:
    """State, values, output, errors."""
    session = sandbox.python()
    first = await session.run("import sys\nx = 20\nprint('é')\nprint('err', file=sys.stderr)\nx + 1")
    assert (first.stdout, first.stderr, first.value) == ("é\n", "err\n", "21"), f"got {first}"
    second = await session.run("def f():\n    return 1 / 0\nx += 1\nf()")
    assert second.error is not None, "an exception is an error"
    assert second.error.splitlines()[-1] == "ZeroDivisionError: division by zero", f"got {second.error}"
    assert "return 1 / 0" in second.error, "a traceback shows the code"
    assert "exec(" not in second.error, "a traceback must show the user's code only"
    third = await session.run("import os\nos.system('echo sub')\nos.write(1, b'raw\\n')\nprint(x)")
    assert third.stdout == "sub\nraw\n21\n", f"everything that is printed is output, in order: {third}"
    assert (await session.run("def (")).error is not None, "a syntax error is an error"
    assert (await session.run("input()")).error is not None, "standard input is empty"
    left = await session.run("sys.exit(3)")
    assert (left.error or "").endswith("SystemExit: 3"), f"exit() must not end a session: {left}"
    assert (await session.run("x")).value == "21", "state must outlast errors"
    other = await sandbox.python().run("x")
    assert other.error is not None, "sessions must not share state"
    assert "NameError" in other.error, "sessions must not share state"
    await sandbox.write("module.py", b"y = 5")
    assert (await session.run("import module; module.y")).value == "5", "modules of the workspace are importable"


async def python_overrun(sandbox: Sandbox) -> None:
    """Interrupted politely first: state is kept. What cannot be interrupted is killed, and the next run is fresh."""
    session = sandbox.python()
    await session.run("x = 1")
    for code in ("while True: pass", "import time; time.sleep(60)", "import os; os.system('sleep 60')"):
        result = await session.run(code, timeout_s=0.2)
        assert result.timed_out, f"{code} must time out"
    assert (await session.run("x")).value == "1", "an interrupt must keep the state"
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    result = await session.run(stubborn, timeout_s=0.2)
    assert result.timed_out, "it must time out"
    assert result.state_lost, "it had to be killed: its state is lost"
    assert "NameError" in str((await session.run("x")).error), "the next run must start fresh"


async def python_death(sandbox: Sandbox) -> None:
    """An interpreter that ends is data, with what it had printed."""
    session = sandbox.python()
    for code, exit_code in (("os._exit(7)", 7), ("os.kill(os.getpid(), 11)", 128 + 11), ("os.abort()", 128 + 6)):
        result = await session.run(f"import os\nprint('before')\n{code}")
        assert (result.state_lost, result.exit_code, result.stdout) == (True, exit_code, "before\n"), f"got {result}"
        assert (await session.run("1")).value == "1", "the next run must start fresh"
    forked = await session.run("import os\npid = os.fork()\npid == 0 or os.waitpid(pid, 0)[1]")
    assert (forked.value, forked.state_lost) == ("0", False), f"code that forks must answer once: {forked}"
    threads = "import threading\nfor n in range(20): threading.Thread(target=lambda: print('t' * 50000)).start()"
    assert not (await session.run(threads)).state_lost, "threads must not end a session"
    assert (await session.run("2")).value == "2", "what threads print must not corrupt answers"


async def python_output(sandbox: Sandbox) -> None:
    """Endless output is cut inside."""
    session = sandbox.python()
    result = await session.run("while True: print('x' * 1000)", timeout_s=0.5, max_output_bytes=2000)
    assert result.timed_out, "it must time out"
    assert result.truncated, "cut output must be told"
    assert len(result.stdout) < 2200, "the limit is a limit"
    assert not result.state_lost, "printing must not make it deaf to an interrupt"
    value = await session.run("'v' * 100_000", max_output_bytes=1000)
    assert len(value.value or "") <= 1000, "values are cut too"


async def shell(sandbox: Sandbox) -> None:
    """State, both outputs, exit codes; standard input is empty; background jobs hold nothing up."""
    session = sandbox.shell()
    await session.run("mkdir -p sub && cd sub && A='b c' && f() { echo \"f:$1\"; }")
    result = await session.run('pwd; echo "$A"; f 1; echo err >&2; (exit 4)')
    assert result.stdout == f"{sandbox.workspace}/sub\nb c\nf:1\n", f"got {result}"
    assert (result.stderr, result.exit_code) == ("err\n", 4), f"got {result}"
    assert (await session.run("cat; read line; echo got:$line")).stdout == "got:\n", "standard input must be empty"
    assert (await session.run("for i in 1 2; do\n  echo $i\ndone # '\n")).stdout == "1\n2\n", "several lines"
    assert (await session.run("if then")).exit_code not in (0, None), "a syntax error is an exit code"
    assert (await session.run("sleep 60 &")).duration_s < 5, "a background job must not hold a run up"
    assert (await session.run("jobs -p | wc -l")).stdout.strip() == "1", "a background job goes on"
    await session.run("(while sleep 0.02; do echo x >> ticks; done &)")
    await sandbox.exec("sleep 0.2")
    await anyio.sleep(0.1)
    first = (await session.run("wc -l < ticks; sleep 0.2; wc -l < ticks")).stdout.split()
    assert int(first[0]) < int(first[1]), "a background job goes on, a forgotten one too"
    ended = await session.run("echo bye; exit 5")
    assert (ended.stdout, ended.exit_code, ended.state_lost) == ("bye\n", 5, True), f"got {ended}"
    assert (await session.run('echo "[$A]"; pwd')).stdout == f"[]\n{sandbox.workspace}\n", "the next run starts fresh"


async def shell_overrun(sandbox: Sandbox) -> None:
    """Interrupted like Python."""
    session = sandbox.shell()
    await session.run("A=1")
    for code in ("sleep 60", "while true; do :; done", "sleep 60; echo never"):
        result = await session.run(code, timeout_s=0.2)
        assert result.timed_out, f"{code} must time out"
        assert "never" not in result.stdout, "what follows an interrupted command must not run"
    assert (await session.run("echo $A")).stdout == "1\n", "an interrupt must keep the state"
    result = await session.run("trap '' INT; sleep 60", timeout_s=0.2)
    assert result.state_lost, "what cannot be interrupted is killed"
    assert (await session.run("echo [$A]")).stdout == "[]\n", "the next run must start fresh"


# --- life -----------------------------------------------------------------------------------------------------------


async def fork(sandbox: Sandbox) -> None:
    """Both continue from the same files, and neither sees what the other does."""
    await sandbox.exec("echo 1 > kept; mkdir d; echo 2 > d/gone; ln -s kept link; chmod 755 kept; echo h > $HOME/h")
    async with await sandbox.fork() as child:
        seen = await child.exec("cat kept d/gone link $HOME/h; test -x kept && echo x; test -L link && echo l")
        assert seen.stdout == b"1\n2\n1\nh\nx\nl\n", f"a fork must have the same files: {seen.output}"
        await child.exec("echo child > kept; rm -r d; echo new > new")
        await sandbox.exec("echo parent > kept")
        assert await sandbox.read("kept") == b"parent\n", "a parent must not see its fork's writes"
        assert await sandbox.read("d/gone") == b"2\n", "a parent must not see what its fork deletes"
        assert await child.read("kept") == b"child\n", "a fork must not see its parent's writes"
        async with await child.fork() as grandchild:
            assert [entry.name for entry in await grandchild.list()] == ["kept", "link", "new"], "deletions are forked"
    assert await sandbox.read("kept") == b"parent\n", "a parent outlives its fork"


async def closing(sandbox: Sandbox) -> None:
    """Closing twice is fine, also while something runs; a closed sandbox says so."""
    session = sandbox.shell()
    await session.run("sleep 60 &")
    await session.close()
    await session.close()
    async with anyio.create_task_group() as tasks:

        async def endless() -> None:
            with suppress(SandboxFailure):
                await sandbox.exec("sleep 60")

        tasks.start_soon(endless)
        await anyio.sleep(0.1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await sandbox.close()
        await sandbox.close()
    for call in (sandbox.exec("true"), sandbox.read("x"), sandbox.python().run("1"), session.run("true")):
        try:
            await call
        except SandboxFailure:
            continue
        raise AssertionError("a closed sandbox must raise SandboxFailure")


CHECKS: tuple[Check, ...] = (
    *(files, missing_files, big_files, commands, failures_are_data, timeouts, endless_output, concurrency),
    *(cancellation, environment, python, python_overrun, python_death, python_output, shell, shell_overrun),
    *(fork, closing),
)
