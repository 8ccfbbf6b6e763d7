"""Opening by name: auto takes the strongest that works; what does not work is one sentence with the fix."""

import logging
import os
import shutil
import tempfile

import pytest

from agent_rl.config import build
from agent_rl.errors import ConfigError, SandboxFailure, UserError
from agent_rl.sandbox import SandboxConfig, get_sandbox, open_sandbox, sandboxes
from agent_rl_sandboxes import bubblewrap
from agent_rl_sandboxes.bubblewrap import BubblewrapSandbox
from agent_rl_sandboxes.process import ProcessSandbox
from tests.sandboxes.kinds import supervised_only

pytestmark = pytest.mark.anyio


def test_the_shipped_backends_are_declared():
    assert {"bubblewrap", "docker", "process"} <= set(sandboxes())
    assert get_sandbox("process") is ProcessSandbox
    assert get_sandbox("bubblewrap").strength() > get_sandbox("process").strength()


async def test_auto_takes_the_strongest_and_logs_what_holds(caplog: pytest.LogCaptureFixture):
    if problem := BubblewrapSandbox.unavailable(SandboxConfig()):
        pytest.skip(problem)
    with caplog.at_level(logging.INFO):
        async with await open_sandbox() as sandbox:
            assert isinstance(sandbox, BubblewrapSandbox)
    assert "Sandbox 'bubblewrap'; not enforced:" in caplog.text


async def test_auto_falls_back_with_a_warning(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    async with await open_sandbox() as sandbox:
        assert isinstance(sandbox, ProcessSandbox)
    assert "not enforced: filesystem, network" in caplog.text
    assert "install bubblewrap" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


async def test_auto_falls_back_when_the_strongest_does_not_start(monkeypatch: pytest.MonkeyPatch):
    async def fail(config: SandboxConfig):
        raise SandboxFailure("no user namespaces", kind="start")

    monkeypatch.setattr(BubblewrapSandbox, "open", fail)
    async with await open_sandbox() as sandbox:
        assert isinstance(sandbox, ProcessSandbox)


async def test_a_missing_program_is_a_sentence_with_the_fix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"'bubblewrap' cannot be used: install bubblewrap.*apt install bubblewrap"):
        await open_sandbox(SandboxConfig(kind="bubblewrap"))


async def test_other_machines_are_told_what_they_lack(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bubblewrap.platform, "machine", lambda: "riscv64")
    assert "riscv64" in str(BubblewrapSandbox.unavailable(SandboxConfig()))
    monkeypatch.setattr(bubblewrap.platform, "system", lambda: "Darwin")
    assert "needs Linux" in str(BubblewrapSandbox.unavailable(SandboxConfig()))
    assert "needs Linux" in str(ProcessSandbox.unavailable(SandboxConfig()))


async def test_mistakes_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"Unknown sandbox 'bublewrap'\. Did you mean 'bubblewrap'"):
        await open_sandbox(SandboxConfig(kind="bublewrap"))
    with pytest.raises(UserError, match=r"base folder .*/nothing of the sandbox is not there"):
        await open_sandbox(SandboxConfig(kind="process", base=tmp_path / "nothing"))
    with pytest.raises(UserError, match="there is no Python /no/python"):
        await open_sandbox(SandboxConfig(kind="process", python="/no/python"))
    with pytest.raises(ConfigError, match="memory_mb"):
        build(SandboxConfig, {"memory_mb": 0})
    with pytest.raises(ConfigError, match="absolute path"):
        build(SandboxConfig, {"read_only": ["relative"]})


@supervised_only
async def test_what_cannot_start_says_why_and_leaves_nothing(kind, tmp_path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho this python is broken >&2; exit 3\n")
    broken.chmod(0o755)
    before, make = len(os.listdir("/proc/self/fd")), tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: make(prefix=prefix, dir=tmp_path))
    with pytest.raises(SandboxFailure):
        await open_sandbox(SandboxConfig(kind=kind, python=str(broken)))
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    with pytest.raises(SandboxFailure, match=r"did not start|not ready"):
        await open_sandbox(SandboxConfig(kind=kind, start_timeout_s=0.001))
    assert list(tmp_path.iterdir()) == [broken]


async def test_read_only_folders_are_shown(public_path):
    if problem := BubblewrapSandbox.unavailable(SandboxConfig()):
        pytest.skip(problem)
    (public_path / "data").write_text("given")
    async with await open_sandbox(SandboxConfig(kind="bubblewrap", read_only=(f"{public_path}:/data",))) as sandbox:
        assert (await sandbox.exec("cat /data/data; echo x > /data/data")).stdout == b"given"
    assert (public_path / "data").read_text() == "given"


async def test_a_sandbox_with_another_workspace():
    if problem := BubblewrapSandbox.unavailable(SandboxConfig()):
        pytest.skip(problem)
    async with await open_sandbox(SandboxConfig(kind="bubblewrap", workspace="/testbed")) as sandbox:
        assert (await sandbox.exec("pwd")).stdout == b"/testbed\n"
        assert sandbox.workspace == "/testbed"
