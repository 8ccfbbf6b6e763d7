"""What only containers have: a daemon that removes them, images, runtimes, a first process that sees to deadlines."""

import gc
import os
import sys
import threading
import time
from pathlib import Path

import anyio
import docker
import pytest

from agent_rl.errors import SandboxFailure, UserError
from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl_sandboxes.docker import DockerSandbox
from tests.sandboxes.docker_daemon import IMAGE

pytestmark = pytest.mark.anyio


@pytest.fixture
def daemon(docker_host: str):
    """A client. What a test leaves behind, once the daemon has had a moment, is a failure."""
    client = docker.DockerClient(base_url=docker_host)
    before = _containers(client)
    yield client
    until = time.monotonic() + 10
    while (left := _containers(client) - before) and time.monotonic() < until:
        time.sleep(0.05)
    client.close()
    assert not left


def _containers(client: docker.DockerClient) -> set[str]:
    return {entry["Id"] for entry in client.api.containers(all=True)}


def of(**options: object) -> SandboxConfig:
    return SandboxConfig.model_validate({"kind": "docker", "image": IMAGE, **options})


async def test_what_cannot_start_says_why_and_leaves_nothing(daemon, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "Dockerfile").write_text("FROM scratch\nRUN nothing\n")
    descriptors = len(os.listdir("/proc/self/fd"))
    for image, sentence in (
        ("agent-rl-nothing:1", r"There is no image 'agent-rl-nothing:1' here: docker pull agent-rl-nothing:1, or "),
        (str(tmp_path / "empty"), r"The folder .*/empty has no Dockerfile to build an image from: write one"),
        (str(tmp_path / "broken"), r"The image of .*/broken cannot be built, mend its Dockerfile: "),
    ):
        with pytest.raises(UserError, match=sentence):
            await open_sandbox(of(image=image))
    with pytest.raises(
        SandboxFailure, match=r"cannot be used: it needs /no/python 3\.9 or newer, tar and bash"
    ) as info:
        await open_sandbox(of(python="/no/python"))
    assert (info.value.kind, info.value.retryable) == ("image", False)
    with pytest.raises(SandboxFailure, match="cannot be used"):
        await open_sandbox(of(python="/bin/true"))  # it starts, and is no Python
    with pytest.raises(SandboxFailure, match=r"did not start in 0\.001 s: raise start_timeout_s"):
        await open_sandbox(of(start_timeout_s=0.001))
    with pytest.raises(SandboxFailure, match="nonesuch"):
        await open_sandbox(of(runtime="nonesuch"))
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the event loop may keep one


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the SDK forgets the socket that found nobody
async def test_without_a_daemon_there_is_a_sentence(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    with pytest.raises(UserError, match="daemon cannot be reached: start it, and set DOCKER_HOST"):
        await open_sandbox(of())
    gc.collect()


def test_what_a_container_cannot_have_is_said():
    for options in ({"read_only": ("/usr",)}, {"image": ""}):
        assert DockerSandbox.unavailable(of(**options))


async def test_an_open_that_is_cancelled_leaves_nothing(daemon):
    """Wherever it is cut off: before the daemon is asked, while it makes, while it starts, and later."""
    for delay_s in (0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.35):
        with anyio.move_on_after(delay_s):
            async with await open_sandbox(of()):
                await anyio.sleep(0.1)
        assert not _containers(daemon), delay_s


async def test_a_dead_container_is_a_failure(daemon):
    """Killed from outside, under a call that is under way: no result of the program's."""
    async with await open_sandbox(of()) as sandbox:
        session = sandbox.python()
        await session.run("x = 1")
        await sandbox.write("x", b"1")
        started = time.monotonic()
        (container,) = _containers(daemon)
        threading.Timer(0.3, daemon.api.kill, [container]).start()
        with pytest.raises(SandboxFailure, match="died") as failure:
            await sandbox.exec("sleep 20", timeout_s=20)
        assert failure.value.kind == "died"
        assert time.monotonic() - started < 8
        for call in (sandbox.exec("true"), sandbox.read("x"), session.run("x")):
            with pytest.raises(SandboxFailure, match="died"):
                await call


async def test_a_host_that_is_killed_leaves_nothing(daemon, tmp_path):
    program = tmp_path / "host.py"
    program.write_text(
        "import anyio, os, sys\n"
        "from agent_rl.sandbox import SandboxConfig, open_sandbox\n"
        "async def main():\n"
        f"    sandbox = await open_sandbox(SandboxConfig(kind='docker', image={IMAGE!r}))\n"
        "    await sandbox.shell().run('sleep 50 &')\n"
        "    sys.stdout.write(sandbox._name); sys.stdout.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    path = os.pathsep.join(path for path in sys.path if path)
    result = await anyio.run_process([sys.executable, str(program)], env=os.environ | {"PYTHONPATH": path}, check=False)
    assert result.stdout.startswith(b"agent-rl-"), result.stderr


async def test_what_stops_its_keeper_is_ended(daemon):
    """A keeper that is stopped sees neither the deadline nor the hang-up; the first process ends it all the same."""
    stop = "setsid sleep 79 & kill -STOP $PPID; exec sleep 79"
    async with await open_sandbox(of()) as sandbox:
        with anyio.move_on_after(0.5):
            await sandbox.exec(stop)
        with anyio.move_on_after(0.5):
            await sandbox.python().run(
                "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nos.system('sleep 79')"
            )
        await anyio.sleep(0.2)
        assert "sleep 79" not in (await sandbox.exec("ps ax -o args")).output.replace("ps ax", "")
        everything = await sandbox.exec("kill -9 -1; sleep 5")
        assert everything.exit_code is None or everything.exit_code == 137
        assert (await sandbox.exec("echo alive")).stdout == b"alive\n", "what watches over it is another's"


async def test_a_folder_with_a_dockerfile(daemon, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY given /opt/given\nENV OF_THE_IMAGE=1\nUSER 1234\n")
    (tmp_path / "given").write_text("by the image\n")
    base = tmp_path / "base"
    base.mkdir()
    (base / ".hidden").write_text("mine\n")
    (base / ".hidden").chmod(0o600)
    async with await open_sandbox(of(image=str(tmp_path), base=base, workspace="/testbed")) as sandbox:
        result = await sandbox.exec(
            "pwd; cat /opt/given .hidden; echo $OF_THE_IMAGE; echo 2 > .hidden; echo 3 > $HOME/h"
        )
        assert result.output == "/testbed\nby the image\nmine\n1\n"
        async with await sandbox.fork() as child:
            assert (await child.exec("cat .hidden $HOME/h; rm .hidden")).output == "2\n3\n"
        assert await sandbox.read(".hidden") == b"2\n"
    assert (base / ".hidden").read_text() == "mine\n"


async def test_a_writable_system_is_forked_with_all_its_files(daemon, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "given").write_text("1")
    images = {image.id for image in daemon.images.list(all=True)}
    async with await open_sandbox(of(writable=True, workspace="/app", base=tmp_path)) as sandbox:
        assert {"disk", "users"} <= set(sandbox.guarantees.missing())
        chown = "python3 -c 'import os; os.chown(\"/opt/x\", 7, 7)'"
        made = await sandbox.exec(f"mkdir -p /etc/new /opt/x && cat given > /opt/x/y && rm given && {chown}")
        assert (made.output, made.exit_code) == ("", 0)
        await sandbox.shell().run("(while :; do date > /opt/late; done) & true")
        async with await sandbox.fork() as fork:
            found = await fork.exec(
                "cat /opt/x/y; stat -c %u /opt/x; ls; rm -f /opt/late; sleep 0.3; ls /opt; pgrep date"
            )
            assert found.output == "17\nx\n"
    assert {image.id for image in daemon.images.list(all=True)} == images


async def test_a_container_whose_programs_were_changed_is_not_forked(daemon):
    for change in (
        "cp /bin/cat /bin/bash2; mv /bin/bash2 /bin/bash",
        "mkdir -p /usr/local/bin; cp /bin/cat /usr/local/bin/python3",
        "echo 'print(1)' >> $(echo /usr/lib/python3.*/os.py)",
        "touch /usr/lib/python311.zip",
        "echo /tmp/evil.so > /etc/ld.so.preload.x; mv /etc/ld.so.preload.x /etc/ld.so.preload",
        "rm /lib64 && mkdir /lib64 && cp /usr/lib64/ld-linux* /lib64/",
    ):
        async with await open_sandbox(of(writable=True)) as sandbox:
            await sandbox.exec(change)
            with pytest.raises(SandboxFailure, match="was changed") as info:
                await sandbox.fork()
            assert (info.value.kind, info.value.retryable) == ("tampered", False), change


async def test_gvisor(daemon):
    if "runsc" not in daemon.info()["Runtimes"] or not Path("/usr/bin/runsc").exists():
        pytest.skip("runsc (gVisor) is not installed, or the daemon does not know it")
    async with await open_sandbox(of(runtime="runsc")) as sandbox:
        assert (await sandbox.exec("dmesg; echo alive")).stdout.endswith(b"alive\n")
        assert (await sandbox.python().run("1 + 1")).value == "2"
        assert "gVisor" in sandbox.guarantees.system_calls.how


async def test_limits_that_the_daemon_cannot_keep_are_not_promised():
    """A daemon without control groups warns, and goes on."""
    sandbox = DockerSandbox(of())
    assert sandbox.guarantees.missing() == []
    sandbox._warnings = (
        "Your kernel does not support memory limit capabilities. Your kernel does not support pids limit"
    )
    assert sandbox.guarantees.missing() == ["processes", "memory"]
