"""Tasks of software engineering in one form, whatever data set they come from. Knows no sandbox and no messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

SourceKind: TypeAlias = Literal["sample", "package", "git", "image"]
Driver: TypeAlias = Literal["pytest", "unittest"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a repository comes from, with what its tests need.

    `name` is a requirement (`click==8.1.7`), whose sdist is taken; the URL or folder of a git repository; or a docker
    image that has the repository in `folder`. `version` names the environment that commits share; empty: each has its
    own. `requires` are packages to install beside it, `python_path` folders to import it from.
    """

    kind: SourceKind
    name: str = ""
    commit: str = ""
    version: str = ""
    folder: str = "/testbed"
    requires: tuple[str, ...] = ()
    python_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a repository, and which tests tell that it was mended.

    All patches are unified diffs: `bug_patch` makes the repository that the agent is given of the source's,
    `test_patch` adds tests that only the grader has, `patch` solves the task. `test_files` are run to grade; the tests
    of `fail_to_pass` and `pass_to_pass` are named as pytest names them. `timeout_s` of a run of them; 0: not known.
    """

    id: str
    statement: str
    source: Source
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...] = ()
    patch: str = ""
    bug_patch: str = ""
    test_patch: str = ""
    test_files: tuple[str, ...] = ()
    hints: str = ""
    driver: Driver = "pytest"
    timeout_s: float = 0.0
    tags: tuple[str, ...] = ()


def files_of(tests: Sequence[str]) -> tuple[str, ...]:
    """The files that tests are in, each once, in order."""
    return tuple(dict.fromkeys(test.partition("::")[0] for test in tests))


def to_data(problem: Problem) -> dict[str, Any]:
    """As JSON, for `Task.data`."""
    return _listed(asdict(problem))


def from_data(data: Mapping[str, Any]) -> Problem:
    """The problem again."""
    values: dict[str, Any] = {**_frozen(data), "source": Source(**_frozen(data["source"]))}
    return Problem(**values)


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else _listed(value) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
