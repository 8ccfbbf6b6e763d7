"""The check of environments: a sound one passes, and every fault is found by the probe that is there for it."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_rl.cli import main
from agent_rl.environment import Environment
from agent_rl.errors import UserError
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.testing import CheckOptions, check_environment, examine_environment
from agent_rl.testing.environment_check import deadlines
from agent_rl.testing.environment_check.report import EnvironmentReport, Finding
from agent_rl.types import Message, Step, Task

pytestmark = pytest.mark.anyio
QUICK = CheckOptions(tasks=8, limits=RolloutLimits(max_turns=20, close_timeout_s=0.3))


def load_vault() -> Any:
    """The environments beside this file, which `--import-mode=importlib` does not make importable."""
    spec = importlib.util.spec_from_file_location("vault", Path(__file__).with_name("vault.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vault"] = module
    spec.loader.exec_module(module)
    return module


vault = load_vault()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(deadlines, "PATIENCE_S", 0.3)
    monkeypatch.setattr(deadlines, "_SETTLE_S", 0.3)
    vault.LeaksThreads.stop.clear()
    yield
    vault.LeaksThreads.stop.set()
    while vault.LeaksFiles.files:
        vault.LeaksFiles.files.pop().close()


def by_probe(report: EnvironmentReport) -> dict[str, Finding]:
    return {finding.probe: finding for finding in report.findings}


async def test_a_sound_environment_passes_every_probe() -> None:
    report = await check_environment(vault.Vault, CheckOptions(tasks=16))
    verdicts = {finding.probe: finding.verdict for finding in report.findings}
    assert verdicts.pop("declared secrets appear nowhere") == "skipped"
    assert set(verdicts.values()) == {"ok"}, verdicts
    scores = {score.name: score for score in report.agents}
    assert scores["oracle"].success is not None
    assert scores["oracle"].success.value == 1.0
    assert scores["random"].success is not None
    assert scores["random"].success.value < 0.3
    assert scores["malformed calls"].episodes == 16


@pytest.mark.parametrize("name", vault.VARIANTS)
async def test_each_fault_is_found_by_its_probe(name: str) -> None:
    kind, probe = vault.VARIANTS[name]
    report = await examine_environment(kind, QUICK)
    if probe not in by_probe(report):  # on a machine that stalls, an earlier probe can end the examination
        report = await examine_environment(kind, QUICK)
    assert by_probe(report)[probe].verdict == "failed", report.findings


async def test_a_leak_has_no_other_symptom() -> None:
    """So it is the leakage probe that finds it, not a cheat that happens to say what it reads."""
    report = await examine_environment(vault.AnswerOfTheOracleInAnError, QUICK)
    assert [finding.probe for finding in report.failed] == ["answers stand where nobody earned them"]


async def test_choices_in_the_prompt_are_no_leak() -> None:
    """Every prompt holds every possible answer: that is chance, not a leak."""

    class Choices(vault.Vault):
        async def reset(self, task: Task, seed: int) -> Any:
            await super().reset(task, seed)
            self.drawers = [f"label {drawer}" for drawer in range(20)]
            return (Message("system", f"Labels: {', '.join(self.drawers)}"), *task.prompt)

        def is_right(self, text: str) -> bool:
            return text == self.drawers[self.task.data["wanted"]]

    assert by_probe(await examine_environment(Choices, QUICK))["answers stand where nobody earned them"].verdict == "ok"


@pytest.mark.parametrize(
    ("tasks", "left"),
    [((5, 6, 7, 8), 3), ((2, 8, 9, 10), 8), ((5, 5, 8, 8), 0), ((5, 8, 5, 8), 0), ((5, 8, 8, 5), 0), ((8, 5, 5, 5), 0)],
)
def test_what_a_pool_makes_once_is_not_left_behind(tasks: tuple[int, ...], left: int) -> None:
    growth = deadlines.repeated_growth([deadlines.Counts(files=9, tasks=count) for count in tasks])
    assert growth == ({"tasks": left} if left else {})


async def test_a_blocked_event_loop_is_told() -> None:
    class Blocks(vault.Vault):
        async def step(self, action: Message) -> Step:
            if action.content in self.drawers:
                time.sleep(0.06)  # noqa: ASYNC251  # the fault
            return await super().step(action)

    finding = by_probe(await examine_environment(Blocks, CheckOptions(tasks=2)))["it never stops the event loop"]
    assert finding.verdict == "note"


async def test_an_environment_without_references_is_checked_as_far_as_it_goes() -> None:
    class Bare(vault.Vault):
        oracle_action = Environment.oracle_action
        random_action = Environment.random_action

    findings = by_probe(await check_environment(Bare, QUICK))
    assert findings["the oracle solves every task"].verdict == "skipped"
    assert findings["the oracle is better than doing nothing and chance"].verdict == "skipped"
    assert findings["the same actions give the same episode"].verdict == "ok"


async def test_an_environment_that_cannot_be_used_says_so_itself() -> None:
    class NeedsData(vault.Vault):
        async def reset(self, task: Task, seed: int) -> Any:
            raise UserError("There is no database: set its path.")

    with pytest.raises(UserError, match="set its path"):
        await examine_environment(NeedsData, QUICK)


async def test_the_raising_form_says_what_to_mend() -> None:
    with pytest.raises(
        AssertionError, match=r"ConstantWins fails 1 checks:\n  cheats .*'always says none' solves 100%"
    ):
        await check_environment(vault.ConstantWins, QUICK)


def test_the_command_exits_with_1_when_a_probe_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "check", "vault:ConstantWins", "-n", "4"]) == 1
    out = capsys.readouterr().out
    assert "oracle" in out
    assert "failed" in out


def test_the_command_checks_several_and_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    games = ["vault:Vault", "agent_rl.testing.environments:GuessNumber"]
    assert main(["env", "check", *games, "-n", "8"]) == 0
    assert "failed probes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the environments to check, or give --all"),
        (["sql_lookup", "--all"], "name the environments to check, or give --all"),
        (["sql_lookup", "--environment-options", "nothing", "1"], "nothing"),
        (["sql_lokup"], "Did you mean 'sql_lookup'?"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "check", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
