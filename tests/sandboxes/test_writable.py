"""Systems that programs may write to: what is theirs, what stays the host's, and forks out of their reach."""

import shutil
from pathlib import Path

import pytest

from agent_rl.errors import UserError
from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl.testing.sandbox import check_sandbox

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(public_path: Path) -> SandboxConfig:
    if not shutil.which("bwrap"):
        pytest.skip("it needs bubblewrap: apt install bubblewrap")
    (public_path / "app").mkdir()
    (public_path / "app" / "given").write_text("given\n")
    return SandboxConfig(kind="bubblewrap", writable=True, base=public_path, workspace="/app", disk_mb=64)


async def test_programs_are_root_of_a_root_folder(config, public_path):
    async with await open_sandbox(config) as sandbox:
        done = await sandbox.exec(
            "id -u; pwd; echo $HOME; cat given; echo new > given; mkdir -p /opt/x; echo 1 > /opt/x/y; echo c > /etc/c;"
            "touch /usr/new /bin/new /lib/new 2>/dev/null; ls /usr/new /bin/new /lib/new 2>/dev/null"
        )
        assert done.output == "0\n/app\n/root\ngiven\n"
        async with await sandbox.fork() as fork:
            await sandbox.close()
            assert (await fork.exec("cat given /opt/x/y /etc/c")).output == "new\n1\nc\n"
    assert (public_path / "app" / "given").read_text() == "given\n"
    assert sorted(path.name for path in public_path.iterdir()) == ["app"]


async def test_it_keeps_the_contract_of_sandboxes(config):
    await check_sandbox(lambda: open_sandbox(config.model_copy(update={"base": None})))


async def test_a_system_without_a_base_has_its_workspace(config):
    async with await open_sandbox(config.model_copy(update={"base": None, "workspace": "/a/b"})) as sandbox:
        assert (await sandbox.exec("pwd; ls -A; ls -A /tmp /root")).output == "/a/b\n/root:\n\n/tmp:\n"


@pytest.mark.parametrize(
    "attack",
    [
        "mv /etc /etc2; mv /run /run2; rm -rf /etc /run; ln -s /tmp/evil /etc",
        "rm -rf /tmp /root /app; ln -s /oldroot/tmp /tmp; ln -s /nowhere /root; ln -s /oldroot/var/tmp/by-fork /app",
        "mv /etc/ssl /etc/ssl2; ln -s /oldroot/tmp /etc/ssl; mv /etc/alternatives /etc/x; ln -s / /etc/alternatives",
        "mv /usr /u; mv /bin /b; mv /lib /l; mv /lib64 /l64; mv /proc /p; mv /dev /d; rm -rf /lib64",
        "echo /tmp/evil.so > /etc/ld.so.preload; rm -f /etc/ld.so.preload /etc/ld.so.cache; mv /etc/ld.so.preload /x",
    ],
)
async def test_a_fork_is_kept_by_the_hosts_programs(config, attack):
    """Whatever the parent's programs left where a fork's first process and its mounts come to be."""
    async with await open_sandbox(config) as sandbox:
        await sandbox.exec("mkdir -p /tmp/evil; echo /tmp/evil.so | tee /tmp/evil/ld.so.preload /tmp/ld.so.preload")
        await sandbox.exec(attack)
        async with await sandbox.fork() as fork:
            await sandbox.close()
            looked = await fork.exec("cat /etc/ld.so.preload; stat -c %F /etc /run /usr /bin /lib64", cwd="/")
            assert looked.output == "directory\n" * 5
            assert (await fork.exec("touch /bin/new /usr/new /lib64/new", cwd="/")).exit_code == 1
    assert not Path("/var/tmp/by-fork").exists()


async def test_the_hosts_python_has_no_code_of_programs(config):
    async with await open_sandbox(config) as sandbox:
        await sandbox.exec("for f in /etc/python3*/sitecustomize.py; do echo 'print(666)' > $f; done; ls /etc/python3*")
        assert (await sandbox.python().run("1 + 1")).value == "2"
        assert (await sandbox.exec(["/usr/bin/python3", "-c", "print(1)"])).output == "1\n"


def test_who_cannot_have_one_says_so(config):
    from agent_rl_sandboxes.bubblewrap import BubblewrapSandbox
    from agent_rl_sandboxes.process import ProcessSandbox

    assert "system of its own" in str(ProcessSandbox.unavailable(config.model_copy(update={"kind": "process"})))
    deep = config.model_copy(update={"read_only": ("/usr/share:/data/share",)})
    assert "right below its root folder" in str(BubblewrapSandbox.unavailable(deep))
    assert BubblewrapSandbox.unavailable(config.model_copy(update={"read_only": ("/usr/share:/share",)})) is None


async def test_a_process_cannot_have_one(config):
    with pytest.raises(UserError, match="no system of its own to write to"):
        await open_sandbox(config.model_copy(update={"kind": "process"}))
