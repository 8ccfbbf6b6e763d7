"""Grades attempts: runs tests in a sandbox of their own, on a clean repository, and says what came of it.

Of an attempt only the changed files count that are not the tests' (`patches.is_protected`). Whatever the tests do after
that, whether they hang, fork or delete everything, is the attempt's doing, unless a repository that has the solution
does the same: then the grader has failed.
"""

from __future__ import annotations

import base64
import functools
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio

from agent_rl.concurrency import in_thread
from agent_rl.errors import GraderFailure, SandboxFailure
from agent_rl.sandbox import Sandbox, SandboxConfig, open_sandbox
from agent_rl_envs.swe.patches import Changes, is_protected, touched
from agent_rl_envs.swe.problems import Problem, files_of
from agent_rl_envs.swe.repositories import Repository, solution_of

Status: TypeAlias = Literal["done", "late", "flooded", "failed", "died", "tampered"]

_INSIDE = Path(__file__).parent / "inside"
_MAX_FILES, _MAX_BYTES = 500, 8 * 2**20
_MAX_REPORT, _TAIL = 32 * 2**20, 16_000
_MARGIN_S, _COLLECT_TIMEOUT_S = 10.0, 60.0
_CANARIES = 3
_HELD = ("passed", "xfailed")


@dataclass(frozen=True, slots=True)
class TestFailure:
    """How a test failed. `line` is of the test's file; `by_test`: by a check of its own, not by what it calls."""

    test: str
    error: str
    message: str
    line: int
    by_test: bool


@dataclass(frozen=True, slots=True)
class TestRun:
    """What came of a run. `outcomes` by test; `entered`: the functions that tests entered, as (file, first line)."""

    status: Status
    outcomes: Mapping[str, str]
    failures: Mapping[str, TestFailure]
    broken_files: Mapping[str, str]
    entered: Mapping[str, Sequence[tuple[str, int]]]
    tail: str = ""
    duration_s: float = 0.0

    def holds(self, test: str) -> bool:
        """Whether it passed. One without a file (`Case.test_x`) passes where it does in all files that have it."""
        if "::" in test:
            return self.outcomes.get(test) in _HELD
        found = [outcome for name, outcome in self.outcomes.items() if _without_file(name) == test]
        return bool(found) and all(outcome in _HELD for outcome in found)

    @property
    def passing(self) -> set[str]:
        """All that passed."""
        return {test for test in self.outcomes if self.holds(test)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The tests of a task after an attempt."""

    fail_to_pass: float
    pass_to_pass: float
    run: TestRun
    failing: tuple[str, ...] = ()

    @property
    def resolved(self) -> bool:
        """Whether all that should pass does."""
        return self.fail_to_pass == self.pass_to_pass == 1.0 and self.run.status == "done"


NOTHING = Verdict(0.0, 0.0, TestRun("done", {}, {}, {}, {}))


@functools.cache
def program(name: str) -> str:
    """The text of a program that runs inside."""
    return (_INSIDE / f"{name}.py").read_text("utf-8")


async def collect_changes(sandbox: Sandbox, repository: Repository) -> Changes:
    """What differs from the repository as it was given."""
    order = {"manifest": repository.manifest, "max_files": _MAX_FILES, "max_bytes": _MAX_BYTES}
    result = await sandbox.exec(
        ["python3", "-I", "-S", "-c", program("collect")],
        stdin=json.dumps(order).encode(),
        timeout_s=_COLLECT_TIMEOUT_S,
        max_output_bytes=2 * _MAX_BYTES + 2**20,
    )
    if result.exit_code != 0 or result.truncated:
        sandbox.check_alive()
        return Changes(too_large=True)  # a tree so deep or wide, or so little memory left, that it cannot be told
    try:  # in an image, even the Python that tells may be the agent's own work
        found = json.loads(result.stdout)
        write = {path: base64.b64decode(content) for path, content in found["write"].items()}
        changes = Changes(write, tuple(found["delete"]), found["too_large"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return Changes(too_large=True)
    return changes.without([path for path in changes.paths if path.startswith("/") or ".." in path.split("/")])


def counted(changes: Changes, problem: Problem) -> Changes:
    """Without those of tests and settings, unless the solution makes them too."""
    allowed = set(touched(problem.patch)) - set(touched(problem.test_patch))
    return changes.without({path for path in changes.paths if is_protected(path) and path not in allowed})


class Judge:
    """Grades `at_once` attempts at a time, each in a sandbox of its own. `timeout_s` is the longest run of tests."""

    def __init__(self, sandbox: SandboxConfig, at_once: int, timeout_s: float) -> None:
        self._sandbox = sandbox
        self._places = anyio.Semaphore(at_once)
        self._timeout_s = timeout_s
        self._sound: dict[str, bool] = {}
        self._checking: dict[str, anyio.Lock] = {}

    async def judge(self, problem: Problem, repository: Repository, changes: Changes) -> Verdict:
        """Raises `GraderFailure` where the tests do not work on a repository that has the solution either."""
        run = await self._run_attempt(problem, repository, changes)
        if run.status in ("late", "flooded", "failed", "died") and not await self.is_sound(problem, repository):
            message = f"The tests of {problem.id} do not work even with the solution: their run ended as {run.status}."
            raise GraderFailure(message, kind="broken_tests", retryable=False)
        return verdict_of(problem, run)

    async def is_sound(self, problem: Problem, repository: Repository) -> bool:
        """Whether the solution is graded as one; without any, whether the tests end. Found out once for each task."""
        async with self._checking.setdefault(problem.id, anyio.Lock()):
            if problem.id not in self._sound:
                changes = await in_thread(functools.partial(solution_of, problem, repository))
                run = await self.run(problem, repository, changes)
                resolved = verdict_of(problem, run).resolved
                self._sound[problem.id] = resolved if problem.patch else run.status == "done"
            return self._sound[problem.id]

    async def _run_attempt(self, problem: Problem, repository: Repository, changes: Changes) -> TestRun:
        """A sandbox that dies is tried once more: it may have been an accident."""
        try:
            return await self.run(problem, repository, changes)
        except SandboxFailure:
            pass
        try:
            return await self.run(problem, repository, changes)
        except SandboxFailure as failure:
            return TestRun("died", {}, {}, {}, {}, str(failure))

    async def run(
        self,
        problem: Problem,
        repository: Repository,
        changes: Changes,
        *,
        files: Sequence[str] | None = None,
        only: Sequence[str] | None = None,
        trace: bool = False,
        hash_seed: int = 0,
    ) -> TestRun:
        """Run tests on the clean repository with these changes: those of the task, or of `files`, or `only` some.

        Raises `SandboxFailure`.
        """
        paths = problem.test_files or files_of((*problem.fail_to_pass, *problem.pass_to_pass))
        config, runtime = repository.court(self._sandbox, problem.source), repository.runtime
        timeout_s = min(problem.timeout_s or self._timeout_s, self._timeout_s)
        canaries = [f"test_{secrets.token_hex(3)}" for _ in range(_CANARIES)]
        job = {
            "write": {path: base64.b64encode(content).decode() for path, content in changes.write.items()},
            "delete": changes.delete,
            "command": [runtime.python, "-s", "-c", program(f"with_{problem.driver}")],
            "environment": {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": "", "PYTEST_ADDOPTS": ""},
            "timeout_s": timeout_s,
            "max_report_bytes": _MAX_REPORT,
            "tail_bytes": _TAIL,
            "order": {
                "files": list(paths if files is None else files),
                "only": None if only is None else list(only),
                "python_path": list(runtime.python_path),
                "canaries": canaries,
                "trace": trace,
            },
        }
        async with self._places, await open_sandbox(config) as sandbox:
            result = await sandbox.exec(
                ["python3", "-I", "-S", "-c", program("perform")],
                stdin=json.dumps(job).encode(),
                timeout_s=timeout_s + _MARGIN_S,
                max_output_bytes=2 * _MAX_REPORT,
            )
            if result.exit_code != 0 or result.truncated:
                return TestRun("died", {}, {}, {}, {}, result.output[-_TAIL:], result.duration_s)
        return read_run(json.loads(result.stdout), canaries)


def read_run(told: Mapping[str, Any], canaries: Sequence[str]) -> TestRun:
    """What `inside/perform` tells. A test counts by the worst that was reported of it."""
    outcomes: dict[str, str] = {}
    failures: dict[str, TestFailure] = {}
    broken: dict[str, str] = {}
    entered: dict[str, list[tuple[str, int]]] = {}
    ended = False
    for record in told["records"]:
        if "test" in record:
            before = outcomes.get(record["test"], "passed")
            outcomes[record["test"]] = record["outcome"] if before in _HELD else before
        elif "failure" in record:
            failure = (record["failure"], record["error"], record["message"], record["line"], record["by_test"])
            failures.setdefault(failure[0], TestFailure(*failure))
        elif "collect" in record:
            broken[record["collect"]] = record["message"]
        elif "entered" in record:
            entered[record["entered"]] = [(path, line) for path, line in record["functions"]]
        ended = ended or "end" in record
    heard = {test: outcome for test, outcome in outcomes.items() if test.rpartition("::")[2] in canaries}
    ours = {test: outcome for test, outcome in outcomes.items() if test not in heard}
    tampered = told["forged"] or any(outcome != "failed" for outcome in heard.values())
    status: Status = told["status"]
    if status == "done" and (tampered or (ours and len(heard) < len(canaries) and ended)):
        status = "tampered"
    elif status == "done" and not ended:
        status = "failed"
    failures = {test: failure for test, failure in failures.items() if test in ours}
    return TestRun(status, ours, failures, broken, entered, told["tail"], told["duration_s"])


def verdict_of(problem: Problem, run: TestRun) -> Verdict:
    """Shares of the tests that passed. A run that was tampered with counts for nothing."""
    tests = (*problem.fail_to_pass, *problem.pass_to_pass)
    if run.status == "tampered":
        return Verdict(0.0, 0.0, run, tests)
    failing = tuple(test for test in tests if not run.holds(test))
    return Verdict(_share(problem.fail_to_pass, run), _share(problem.pass_to_pass, run), run, failing)


def _without_file(test: str) -> str:
    return test.partition("::")[2].replace("::", ".")


def _share(tests: Sequence[str], run: TestRun) -> float:
    return sum(map(run.holds, tests)) / len(tests) if tests else float(run.status == "done")
