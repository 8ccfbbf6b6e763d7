"""Tries bugs of a package one batch after another, and keeps those that make good tasks.

Everything that was tried is noted in a file, so that a run that was killed goes on where it was. What is kept depends
on the seed alone: results are looked at in the order of the candidates, however many are tried at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agent_rl.concurrency import collect, in_thread
from agent_rl.errors import GraderFailure, SandboxFailure
from agent_rl.seeding import derive_seed, stream
from agent_rl_envs.swe.factory.bugs import Bug, bug_from, bug_to_data
from agent_rl_envs.swe.factory.mutations import Mutation
from agent_rl_envs.swe.factory.statements import Symptom, find_symptom, leaks, write_statement
from agent_rl_envs.swe.factory.survey import Survey, candidates
from agent_rl_envs.swe.judge import Judge, TestRun
from agent_rl_envs.swe.patches import Changes, unified_diff
from agent_rl_envs.swe.problems import Problem, files_of
from agent_rl_envs.swe.repositories import Repositories, Repository, solution_of

Rejection: TypeAlias = Literal[
    "no program",
    "not noticed",
    "breaks too much",
    "cannot be loaded",
    "does not end",
    "differs from run to run",
    "leaks",
    "not mended",
    "sandbox died",
]

_BATCH = 4
_MAX_SHARE = 0.25  # of all tests, that a bug may fail
_MAX_FAILING = 60
_LEAST_TIMEOUT_S = 10.0
_TIMES_SLOWER = 8.0


@dataclass(slots=True)
class Tried:
    """What was tried so far, in a file of its own: the bug where it was kept, else why not."""

    path: Path
    outcomes: dict[str, str | Bug] = field(default_factory=dict[str, "str | Bug"])

    @classmethod
    def load(cls, path: Path) -> Tried:
        """From a file that may be there; a line that was being written when it was killed is left out."""
        tried = cls(path)
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        for line in lines:
            try:
                entry: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            tried.outcomes[entry["id"]] = bug_from(entry["bug"]) if "bug" in entry else entry["rejected"]
        return tried

    def note(self, id: str, outcome: str | Bug) -> None:
        """Take down what came of a candidate."""
        self.outcomes[id] = outcome
        entry = {"bug": bug_to_data(outcome)} if isinstance(outcome, Bug) else {"rejected": outcome}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"id": id, **entry}) + "\n")


@dataclass(frozen=True, slots=True)
class Workshop:
    """One package to make tasks of."""

    clean: Problem
    repository: Repository
    repositories: Repositories
    judge: Judge
    survey: Survey

    async def find_bugs(
        self, count: int, seed: int, per_function: int, tried: Tried, on_kept: Callable[[int, int], None]
    ) -> tuple[list[Bug], Counter[str]]:
        """`count` bugs, fewer where there are no more, and how many were rejected for which reason.

        `on_kept` is told how many were kept, and tried.
        """
        waiting = _mixed(candidates(self.repository.folder, self.survey), seed, self.clean.id)
        kept: list[Bug] = []
        rejected: Counter[str] = Counter()
        by_function: Counter[str] = Counter()
        while waiting and len(kept) < count:
            batch: list[tuple[str, Mutation]] = []
            while waiting and len(batch) < _BATCH:
                path, mutation = waiting.pop(0)
                if by_function[f"{path}:{mutation.function}"] < per_function:
                    batch.append((path, mutation))
            outcomes = await collect([partial(self._outcome, path, mutation, tried) for path, mutation in batch])
            for outcome in outcomes:
                if not isinstance(outcome, Bug):
                    rejected[outcome] += 1
                elif len(kept) < count and by_function[outcome.place] < per_function:
                    kept.append(outcome)
                    by_function[outcome.place] += 1
            on_kept(len(kept), len(kept) + rejected.total())
        return kept, rejected

    async def _outcome(self, path: str, mutation: Mutation, tried: Tried) -> str | Bug:
        id = f"{path}@{mutation.start}-{mutation.end}:{mutation.replacement}"
        if id not in tried.outcomes:
            try:
                outcome = await self.verify(path, mutation)
            except (SandboxFailure, GraderFailure):
                outcome = "sandbox died"
            tried.note(id, outcome)
        return tried.outcomes[id]

    async def verify(self, path: str, mutation: Mutation) -> Bug | Rejection:
        """Three runs with different seeds of hashes, which must agree, and one with the solution.

        Two are of the tests that enter the function, since others cannot notice, and one is as attempts are graded.
        """
        source = (self.repository.folder / path).read_bytes()
        if not mutation.is_possible(source):
            return "no program"
        changes = Changes({path: mutation.applied(source)})
        covering = self.survey.covering[f"{path}:{mutation.first_line}"]
        first = await self._run(changes, covering, covering, 0)
        failing = tuple(test for test in covering if not first.holds(test))
        if reason := _unfit(first) or self._unfit_tests(failing):
            return reason
        graded = tuple(test for test in self.survey.tests if test.partition("::")[0] in files_of(covering))
        for hash_seed, tests, only in ((1, covering, covering), (2, graded, None)):
            again = await self._run(changes, tests, only, hash_seed)
            if _unfit(again) or {*failing} != {test for test in tests if not again.holds(test)}:
                return "differs from run to run"
        symptoms = tuple(self._symptoms(failing, first))
        bug = Bug(path, mutation, failing, covering, symptoms)
        problem = self.problem(bug)
        added = [line[1:] for line in problem.patch.splitlines() if line.startswith("+") and line[1:2] != "+"]
        if leaks(problem.statement, added):
            return "leaks"
        return bug if await self._is_mended(problem) else "not mended"

    def _unfit_tests(self, failing: Sequence[str]) -> Rejection | None:
        if not failing:
            return "not noticed"
        most = min(_MAX_FAILING, max(1, _MAX_SHARE * len(self.survey.tests)))
        return "breaks too much" if len(failing) > most else None

    async def _is_mended(self, problem: Problem) -> bool:
        """By the solution, as an attempt at the task itself is graded."""
        repository = await self.repositories.prepare(problem)
        changes = await in_thread(partial(solution_of, problem, repository))
        return (await self.judge.judge(problem, repository, changes)).resolved

    async def _run(self, changes: Changes, tests: Sequence[str], only: Sequence[str] | None, hash_seed: int) -> TestRun:
        """All tests in the files of some, or `only` those."""
        problem = replace(self.clean, timeout_s=self.timeout_s)
        return await self.judge.run(
            problem, self.repository, changes, files=files_of(tests), only=only, hash_seed=hash_seed
        )

    @property
    def timeout_s(self) -> float:
        """For a run of all tests, on a busy machine."""
        return max(_LEAST_TIMEOUT_S, _TIMES_SLOWER * self.survey.duration_s)

    def _symptoms(self, failing: Sequence[str], run: TestRun) -> list[Symptom]:
        found: list[Symptom] = []
        for test in failing:
            failure = run.failures.get(test)
            if failure is not None:
                file = self.repository.folder / test.partition("::")[0]
                source = file.read_text("utf-8", "replace") if file.is_file() else ""
                symptom = find_symptom(test, failure.error, failure.message, source, failure.line, failure.by_test)
                found.append(symptom)
        return found or [Symptom(failing[0], "", "", "it fails", True)]

    def problem(self, bug: Bug) -> Problem:
        """The task that a bug makes. Its tests are those of the files that notice it or run its function."""
        source = (self.repository.folder / bug.path).read_bytes()
        before, after = source.decode(), bug.mutation.applied(source).decode()
        name = self.clean.id.partition("==")[0].rpartition("/")[2]
        id = f"{name}-{derive_seed(self.clean.id, bug.path, bug.mutation.start, bug.mutation.replacement):016x}"
        files = files_of((*bug.failing, *bug.covering))
        stubs = [(bug.mutation.function, bug.path)] if bug.mutation.kind == "stub" else []
        return replace(
            self.clean,
            id=id,
            statement=write_statement(bug.symptoms, stream("swe statement", id), stubs),
            fail_to_pass=bug.failing,
            pass_to_pass=tuple(
                test for test in self.survey.tests if test not in bug.failing and test.partition("::")[0] in files
            ),
            patch=unified_diff(bug.path, after, before),
            bug_patch=unified_diff(bug.path, before, after),
            test_files=files,
            timeout_s=self.timeout_s,
            tags=(name, bug.mutation.kind),
        )


def _unfit(run: TestRun) -> Rejection | None:
    if run.status in ("late", "flooded"):
        return "does not end"
    if run.broken_files or run.status != "done":
        return "cannot be loaded"
    return None


def _mixed(found: Sequence[tuple[str, Mutation]], seed: int, name: str) -> list[tuple[str, Mutation]]:
    """In random order, with all kinds of bugs and all functions near the beginning."""
    rng = stream("swe factory", name, seed)
    shuffled = [found[int(index)] for index in rng.permutation(len(found))]
    kinds: Counter[str] = Counter()
    places: Counter[str] = Counter()
    ranked: list[tuple[int, int, tuple[str, Mutation]]] = []
    for index, (path, mutation) in enumerate(shuffled):
        place = f"{path}:{mutation.function}"
        ranked.append((kinds[mutation.kind] + 2 * places[place], index, (path, mutation)))
        kinds[mutation.kind] += 1
        places[place] += 1
    return [candidate for _, _, candidate in sorted(ranked, key=lambda entry: entry[:2])]
