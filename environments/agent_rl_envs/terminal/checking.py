"""Grades what an agent left: the task's checker, in a system with all its files and none of its processes.

A fork of the agent's sandbox has its files; nothing that it started runs there, and what it left where the checker and
its verdict go is removed first. Only then are the tests put in. What remains possible is what tests let themselves be
told by the agent's own files and programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import anyio

from agent_rl.concurrency import in_thread
from agent_rl.errors import GraderFailure, SandboxFailure
from agent_rl.sandbox import Sandbox, SandboxConfig, open_sandbox
from agent_rl_envs.terminal.problems import Problem, Script
from agent_rl_envs.terminal.scores import Garbled, overall, passed_of_pytest, passed_of_report, read_rewards

Status: TypeAlias = Literal["done", "late", "garbled", "died"]
LOGS = "/logs/verifier"
_BASH = ("/bin/bash", "--noprofile", "--norc")
# Where pytest looks for settings of tests in /tests: its folder and those above it.
_PLANTED = "/conftest.py /pytest.ini /.pytest.ini /tox.ini /setup.cfg /pyproject.toml"
_PLACE = """set -e
for folder in "$@"; do
    [ -d "$folder" ] && [ ! -L "$folder" ] || rm -rf -- "$folder"
    mkdir -p -- "$folder"
done
"""
_RUN = 'cd -- "$1" 2>/dev/null || cd /; exec /bin/bash --noprofile --norc "$2"'
_MAX_OUTPUT, _TAIL = 4 * 2**20, 2000
_MAX_FILE = 2**20
_PLACE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check. `rewards` are the checker's own, `tests` the share that passed where it says so."""

    status: Status
    rewards: Mapping[str, float] = field(default_factory=dict[str, float])
    tests: float | None = None
    said: str = ""
    duration_s: float = 0.0

    @property
    def reward(self) -> float:
        """The checker's one number; 0 where it said nothing."""
        return overall(self.rewards) if self.rewards else 0.0

    @property
    def solved(self) -> bool:
        """Whether every reward is 1 or more."""
        return bool(self.rewards) and all(reward >= 1.0 for reward in self.rewards.values())


class Judge:
    """Runs checkers, some at a time, and finds out whom to blame where one does not work."""

    def __init__(self, at_once: int, timeout_s: float) -> None:
        self._places = anyio.Semaphore(at_once)
        self._timeout_s = timeout_s
        self._sound: dict[str, bool] = {}
        self._checking: dict[str, anyio.Lock] = {}

    async def judge(self, problem: Problem, config: SandboxConfig, sandbox: Sandbox) -> Verdict:
        """The agent's sandbox is closed on the way.

        Raises `GraderFailure` where the checker does not work on what the solution leaves either.
        """
        async with self._places:
            verdict = await self._check(problem, sandbox)
            if verdict.status != "done" and not await self.is_sound(problem, config):
                message = f"The checker of {problem.id} does not work even on its solution: {verdict.said[-300:]}"
                raise GraderFailure(message, kind="broken_checker", retryable=False)
            return verdict

    async def is_sound(self, problem: Problem, config: SandboxConfig) -> bool:
        """Whether the solution is graded as one; without any, whether the checker ends. Found out once for a task."""
        key = f"{problem.folder}"
        async with self._checking.setdefault(key, anyio.Lock()):
            if key not in self._sound:
                sandbox = await open_sandbox(config)
                async with sandbox:
                    if problem.solution is not None:
                        await run_script(sandbox, problem.solution, config.workspace, self._timeout_s)
                    verdict = await self._check(problem, sandbox)
                self._sound[key] = verdict.solved if problem.solution is not None else verdict.status == "done"
            return self._sound[key]

    async def _check(self, problem: Problem, sandbox: Sandbox) -> Verdict:
        """A fork that cannot be had is tried once more: if it was no accident, it was the agent's doing."""
        try:
            court = await sandbox.fork()
        except SandboxFailure:
            sandbox.check_alive()
            try:
                court = await sandbox.fork()
            except SandboxFailure as failure:
                return Verdict("died", said=str(failure))
        async with court:
            await sandbox.close()
            try:
                return await check(problem, court, self._timeout_s)
            except SandboxFailure as failure:
                return Verdict("died", said=str(failure))


async def check(problem: Problem, court: Sandbox, timeout_s: float) -> Verdict:
    """Run the checker in a sandbox that is for it alone. Raises `SandboxFailure`."""
    script = problem.checker
    timeout_s = min(script.timeout_s, timeout_s)
    if court.workspace != "/":
        await court.exec(["/bin/rm", "-rf", "--", *_PLANTED.split()], cwd="/", timeout_s=_PLACE_TIMEOUT_S)
    if said := await place(court, script, "/logs", LOGS):
        return Verdict("died", said=said)
    done = await court.exec(
        [*_BASH, "-c", _RUN, "checker", court.workspace, script.path],
        env={**_clean(), **script.environment},
        cwd="/",
        timeout_s=timeout_s,
        max_output_bytes=_MAX_OUTPUT,
    )
    said = done.output[-_TAIL:]
    if done.timed_out:
        return Verdict("late", said=f"it took longer than {timeout_s:g} s. {said}", duration_s=done.duration_s)
    if done.exit_code is None:
        return Verdict("died", said=said, duration_s=done.duration_s)
    try:
        rewards, tests = await _verdict(problem, court, done.output)
    except Garbled as error:
        return Verdict("garbled", said=f"{error}. {said}", duration_s=done.duration_s)
    return Verdict("done", rewards, tests, said, done.duration_s)


async def _verdict(problem: Problem, court: Sandbox, output: str) -> tuple[dict[str, float], float | None]:
    if problem.layout == "terminal_bench":
        share = passed_of_pytest(output)
        if share is None:
            raise Garbled("it printed no summary of pytest's")
        return {"reward": float(share == 1.0)}, share
    text, table, report = [await _read(court, f"{LOGS}/{name}") for name in ("reward.txt", "reward.json", "ctrf.json")]
    rewards = read_rewards(text, table)
    return rewards, passed_of_report(report) if report is not None else None


async def _read(court: Sandbox, path: str) -> str | None:
    try:
        return (await court.read(path, max_bytes=_MAX_FILE)).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Garbled(f"{path} cannot be read ({error.strerror})") from error


async def place(sandbox: Sandbox, script: Script, *folders: str) -> str:
    """Put a script's files where it wants them, and nothing else is there then. What went wrong, in words."""
    emptied = f"rm -rf -- {script.target} {LOGS}\n" if folders else f"rm -rf -- {script.target}\n"
    unpack = f"tar -C {script.target} --no-same-owner -xf -"
    packed = await in_thread(partial(script.packed))
    done = await sandbox.exec(
        [*_BASH, "-c", emptied + _PLACE + unpack, "place", *folders, script.target],
        stdin=packed,
        env=_clean(),
        cwd="/",
        timeout_s=_PLACE_TIMEOUT_S,
    )
    return "" if done.exit_code == 0 else f"{script.target} could not be made: {done.output[-_TAIL:]}"


async def run_script(sandbox: Sandbox, script: Script, folder: str, timeout_s: float) -> None:
    """Run one of the author's scripts in a folder. Whether it works is for the checker to say."""
    await place(sandbox, script)
    await sandbox.exec([*_BASH, script.path], env={**_clean(), **script.environment}, cwd=folder, timeout_s=timeout_s)


def _clean() -> dict[str, str]:
    """Variables by which programs would load what lies about in the agent's home."""
    return {"BASH_ENV": "", "ENV": "", "PYTHONNOUSERSITE": "1", "PYTHONSTARTUP": ""}
