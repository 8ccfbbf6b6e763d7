"""`agent-rl doctor sandbox`: probes find what holds, promises that are broken are an error."""

from dataclasses import fields, replace

import pytest

from agent_rl.cli import main
from agent_rl.doctor.sandbox import ATTACKS, broken_promises, examine
from agent_rl.sandbox import Guarantee, Guarantees
from agent_rl_sandboxes.process import ProcessSandbox
from tests.sandboxes.kinds import image_of


def test_every_guarantee_is_attacked():
    assert set(ATTACKS) == {field.name for field in fields(Guarantees)}


@pytest.mark.anyio
async def test_probes_tell_what_holds(kind):
    report = await examine(kind, image_of(kind))
    held = {probe.name for probe in report.probes if probe.held}
    assert report.guarantees is not None
    if kind != "process":
        assert {"filesystem", "network", "processes", "users", "system_calls", "time"} <= held
    else:
        assert not {"filesystem", "network", "processes", "time"} & held
    assert broken_promises([report]) == ""
    promise = Guarantee(True, "so it is said")
    boastful = replace(report, guarantees=Guarantees(*[promise] * len(ATTACKS)))
    complaint = broken_promises([boastful])
    assert (complaint == "") is (len(held) == len(ATTACKS))
    assert ("process: filesystem" in complaint) is (kind == "process")


def test_the_command(capsys: pytest.CaptureFixture[str], kind, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in set(ATTACKS) - {"filesystem"}:
        monkeypatch.delitem(ATTACKS, name)
    assert main(["doctor", "sandbox", "--kind", kind, "--image", image_of(kind)]) == 0
    assert "filesystem" in capsys.readouterr().out


def test_without_an_image_docker_says_why(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("agent_rl.doctor.sandbox.ATTACKS", {"users": ATTACKS["users"]})
    assert main(["doctor", "sandbox"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("docker: ")]
    assert line.startswith("docker: does not work. The sandbox 'docker' cannot be used: it needs an image: set `image`")


def test_a_backend_that_does_not_work_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert main(["doctor", "sandbox", "--kind", "nothing"]) == 2
    assert "Unknown sandbox 'nothing'" in capsys.readouterr().err
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main(["doctor", "sandbox", "--kind", "bubblewrap"]) == 2
    assert "install bubblewrap" in " ".join(capsys.readouterr().err.split())


def test_a_broken_promise_is_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    promise = Guarantee(True, "so it is said")
    monkeypatch.setattr(ProcessSandbox, "guarantees", Guarantees(*[promise] * len(ATTACKS)))
    assert main(["doctor", "sandbox", "--kind", "process"]) == 1
    assert "Promised but not kept" in capsys.readouterr().err
