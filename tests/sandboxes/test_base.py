"""A workspace that starts as a folder of the host's, which stays as it is; forks of it; other users; no mounts."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import anyio.to_thread
import pytest

from tests.sandboxes.kinds import supervised_only

pytestmark = pytest.mark.anyio


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "code.py").write_text("x = 1\n")
    (folder / "private").write_text("mine\n")
    (folder / "private").chmod(0o600)
    (folder / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("src/code.py")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


async def test_a_base_is_writable_inside_and_unchanged_outside(opened, base):
    before = content(base)
    async with await opened(base=base) as sandbox:
        assert (await sandbox.exec("cat private link; ./run.sh")).stdout == b"mine\nx = 1\nran\n"
        change = "echo 'x = 2' > src/code.py; echo new > src/new; rm private; rm -r src/../run.sh; mv src moved; ls"
        changed = await sandbox.exec(change)
        assert (changed.stdout, changed.stderr) == (b"link\nmoved\n", b"")
        async with await sandbox.fork() as child:
            assert (await child.exec("ls; cat moved/code.py moved/new")).stdout == b"link\nmoved\nx = 2\nnew\n"
            await child.exec("rm -r moved")
        assert await sandbox.read("moved/new") == b"new\n"
    assert content(base) == before


async def test_many_from_one_base_do_not_meet(opened, base):
    async with await opened(base=base) as one, await opened(base=base) as two:
        await one.exec("echo one > src/code.py")
        await two.exec("rm src/code.py")
        assert await one.read("src/code.py") == b"one\n"
    assert (base / "src" / "code.py").read_text() == "x = 1\n"


@pytest.mark.slow
@supervised_only
async def test_forking_a_large_tree_is_quick(opened, tmp_path):
    """A fork costs what was written since, not what is there."""
    for number in range(1000):
        (tmp_path / f"f{number}").write_bytes(bytes(200_000))
    async with await opened(base=tmp_path) as sandbox:
        if sandbox._storage != "overlay":
            pytest.skip("no overlays here")
        await sandbox.write("changed", b"x")
        times: list[float] = []
        for _ in range(10):
            started = time.perf_counter()
            async with await sandbox.fork() as child:
                times.append(time.perf_counter() - started)
                assert len(await child.list()) == 1001
    sys.stdout.write(f"fork of 200 MB: {1000 * statistics.median(times):.0f} ms\n")
    assert statistics.median(times) < 0.5


SCRIPT = """
import os, sys
import anyio
from pathlib import Path
from agent_rl.sandbox import SandboxConfig
from agent_rl.testing.sandbox import CHECKS, check_sandbox
from agent_rl.sandbox import open_sandbox
names = ("files", "commands", "timeouts", "python", "shell", "fork", "closing")
async def main(kind):
    config = SandboxConfig(kind=kind, base=Path(sys.argv[2]) if len(sys.argv) > 2 else None, memory_mb=256)
    if config.base is None:
        await check_sandbox(lambda: open_sandbox(config), [check for check in CHECKS if check.__name__ in names])
    async with await open_sandbox(config) as sandbox:
        assert (await sandbox.exec("echo changed > private; cat private", )).stdout == b"changed\\n"
        missing = sandbox.guarantees.missing()
        print(kind, sandbox._storage, *missing)
anyio.run(main, sys.argv[1])
"""


@pytest.mark.slow
@supervised_only
@pytest.mark.parametrize("with_base", [False, True])
async def test_an_ordinary_user_can_have_sandboxes(kind, base, public_path, with_base):
    """The same without any privilege: limits by rlimit where control groups are root's."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, by setpriv")
    site_packages = next(path for path in sys.path if path.endswith("site-packages"))
    project = [str(Path(__file__).parents[2] / name) for name in (".", "environments", "tools", "sandboxes")]
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": ":".join([*project, site_packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    user = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "/usr/bin/python3"]
    probe = subprocess.run([*user, "-c", "import pydantic, anyio"], env=environment, capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("another user cannot import what this project needs")
    arguments: list[str] = []
    if with_base:
        for path in (base, *base.rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)
        arguments = [str(base)]
    result = await anyio.run_process([*user, "-c", SCRIPT, kind, *arguments], env=environment, check=False)
    assert result.returncode == 0, result.stderr.decode()
    words = result.stdout.decode().split()
    assert words[:2] == [kind, "overlay" if with_base else "tmpfs"]
    if kind == "bubblewrap":
        assert set(words[2:]) <= {"memory", "cpu"}
    assert (base / "private").read_text() == "mine\n"


@supervised_only
async def test_without_mounts_a_base_is_copied(opened, kind, base, monkeypatch: pytest.MonkeyPatch):
    """In a container that may not mount, folders and copies do the same, less quickly."""
    from agent_rl_sandboxes import launching

    program = Path(launching.__file__).with_name("launcher.py").read_text()
    assert "mounts.enter_own_namespace() and" in program
    crippled = Path(launching.__file__).with_name("launcher_without_mounts_for_test.py")
    crippled.write_text(program.replace("mounts.enter_own_namespace() and", "False and"))
    try:
        monkeypatch.setattr(Path, "with_name", lambda path, name: crippled)
        async with await opened(base=base) as sandbox:
            assert sandbox._storage == "folder"
            assert not sandbox.guarantees.disk.enforced
            assert (
                await sandbox.exec("cat private; echo 2 > src/code.py; rm run.sh; touch $HOME/a")
            ).stdout == b"mine\n"
            async with await sandbox.fork() as child:
                assert (await child.exec("cat src/code.py; ls; echo 3 > src/code.py; ls $HOME")).output.split() == [
                    *("2", "link", "private", "src", "a")
                ]
            assert await sandbox.read("src/code.py") == b"2\n"
    finally:
        crippled.unlink()
    assert (base / "src" / "code.py").read_text() == "x = 1\n"
