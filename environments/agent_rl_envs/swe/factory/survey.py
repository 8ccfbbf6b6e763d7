"""What is found out about a package once: which of its tests always pass, and which functions each of them enters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agent_rl.errors import UserError
from agent_rl_envs.swe.factory.mutations import Mutation, mutations
from agent_rl_envs.swe.judge import Judge, TestRun
from agent_rl_envs.swe.patches import Changes, is_protected
from agent_rl_envs.swe.problems import Driver, Problem, Source, files_of
from agent_rl_envs.swe.repositories import Repository

_RUNS = 3
_NO_SOURCE = {"docs", "doc", "examples", "benchmarks", "bench", "scripts", "tools", "build"}


@dataclass(frozen=True, slots=True)
class Survey:
    """A package's tests. `covering`: the tests that enter a function, by `path:first line`."""

    tests: tuple[str, ...]
    covering: Mapping[str, tuple[str, ...]]
    duration_s: float

    @property
    def files(self) -> tuple[str, ...]:
        """The files with tests that pass."""
        return files_of(self.tests)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Survey:
        """The survey again."""
        data = json.loads(text)
        covering = {place: tuple(tests) for place, tests in data["covering"].items()}
        return cls(tuple(data["tests"]), covering, data["duration_s"])


def clean_problem(name: str, source: Source, driver: Driver, timeout_s: float = 0.0) -> Problem:
    """The package as it is, for runs of its tests."""
    return Problem(name, "", source, fail_to_pass=(), driver=driver, timeout_s=timeout_s)


async def survey(problem: Problem, repository: Repository, judge: Judge) -> Survey:
    """Run all tests several times. Raises `UserError` where too few pass to make anything of it."""
    files = files_with_tests(repository.folder)
    if not files:
        raise UserError(f"{problem.id} comes without tests: take its git repository instead of its sdist.")
    first = await judge.run(problem, repository, Changes(), files=files)
    files = [file for file in files if file in files_of(list(first.passing))]
    if first.status != "done" or not files:
        why = first.tail.strip()[-500:] or "none of them passes"
        raise UserError(f"The tests of {problem.id} cannot be run ({first.status}): {why}")
    again = [
        await judge.run(problem, repository, Changes(), files=files, hash_seed=seed, trace=seed == _RUNS - 1)
        for seed in range(1, _RUNS)
    ]
    passing = first.passing.intersection(*[run.passing for run in again])
    tests = tuple(test for test in first.outcomes if test in passing)
    return Survey(tests, _covering(again[-1], set(tests)), first.duration_s)


def files_with_tests(folder: Path) -> list[str]:
    """Files that pytest would collect."""
    found = [*folder.rglob("test_*.py"), *folder.rglob("*_test.py"), *folder.rglob("tests.py")]
    paths = {path.relative_to(folder).as_posix() for path in found}
    return sorted(path for path in paths if not set(Path(path).parts[:-1]) & _NO_SOURCE)


def _covering(run: TestRun, tests: set[str]) -> dict[str, tuple[str, ...]]:
    covering: dict[str, list[str]] = {}
    for test, places in run.entered.items():
        if test in tests:
            for path, line in places:
                covering.setdefault(f"{path}:{line}", []).append(test)
    return {place: tuple(found) for place, found in sorted(covering.items())}


def candidates(folder: Path, found: Survey) -> list[tuple[str, Mutation]]:
    """All bugs for functions that tests enter, by path."""
    paths = sorted({place.rpartition(":")[0] for place in found.covering})
    return [
        (path, mutation)
        for path in paths
        if _is_source(path)
        for mutation in mutations((folder / path).read_bytes())
        if f"{path}:{mutation.first_line}" in found.covering
    ]


def _is_source(path: str) -> bool:
    parts: Sequence[str] = Path(path).parts
    return not is_protected(path) and not set(parts[:-1]) & _NO_SOURCE and parts[-1] != "setup.py"
