"""Tasks without any data set: bugs in the small package that ships with this one (`sample/`), alone or several at once.

`sample_bugs.json` has bugs of the task factory's, with the tests that notice each. Several are put together only if no
test runs the functions of two of them: then the tests that fail are those of the one and those of the other.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent_rl.seeding import derive_seed, stream
from agent_rl_envs.swe.factory.bugs import Bug, bug_from
from agent_rl_envs.swe.factory.statements import write_statement
from agent_rl_envs.swe.patches import unified_diff
from agent_rl_envs.swe.problems import Problem, Source, files_of
from agent_rl_envs.swe.sources import SAMPLE

BUGS = Path(__file__).parent / "sample_bugs.json"
_TEST_SHARE = 4  # one of so many functions is for the test split
_TIMEOUT_S = 20.0
_TRIES = 50


def make_problems(split: str, count: int, seed: int, sizes: Sequence[int]) -> list[Problem]:
    """`count` different tasks, fewer where there are no more. No function is in both splits."""
    rng = stream("swe sample", split, seed)
    known: dict[str, Problem] = {}
    for _ in range(_TRIES * count):
        if len(known) == count:
            break
        size = sizes[int(rng.integers(len(sizes)))]
        bugs = _apart(_bugs_of(split), size, rng)
        id = f"swe/{split}/{derive_seed(*sorted(_name(bug) for bug in bugs)):016x}"
        if bugs and id not in known:
            known[id] = _problem(id, bugs)
    return list(known.values())


def _apart(bugs: Sequence[Bug], size: int, rng: np.random.Generator) -> list[Bug]:
    """`size` bugs that no test runs two of; empty where chance finds none."""
    chosen: list[Bug] = []
    for index in rng.permutation(len(bugs)):
        bug = bugs[int(index)]
        if all(set(bug.covering).isdisjoint(other.covering) for other in chosen):
            chosen.append(bug)
        if len(chosen) == size:
            return chosen
    return []


def _name(bug: Bug) -> str:
    return f"{bug.path}@{bug.mutation.start}-{bug.mutation.end}:{bug.mutation.replacement}"


def _problem(id: str, bugs: Sequence[Bug]) -> Problem:
    broken: dict[str, bytes] = {}
    for bug in sorted(bugs, key=lambda bug: -bug.mutation.start):  # from the end, so that positions stay right
        source = broken.get(bug.path) or (SAMPLE / bug.path).read_bytes()
        broken[bug.path] = bug.mutation.applied(source)
    whole = {path: (SAMPLE / path).read_text("utf-8") for path in sorted(broken)}
    failing = tuple(sorted(test for bug in bugs for test in bug.failing))
    stubs = [(bug.mutation.function, bug.path) for bug in bugs if bug.mutation.kind == "stub"]
    symptoms = [symptom for bug in bugs for symptom in bug.symptoms]
    return Problem(
        id=id,
        statement=write_statement(symptoms, stream("swe statement", id), stubs),
        source=Source("sample"),
        fail_to_pass=failing,
        pass_to_pass=tuple(test for test in _known()[1] if test not in failing),
        patch="".join(unified_diff(path, broken[path].decode(), text) for path, text in whole.items()),
        bug_patch="".join(unified_diff(path, text, broken[path].decode()) for path, text in whole.items()),
        test_files=files_of(_known()[1]),
        driver="unittest",
        timeout_s=_TIMEOUT_S,
        tags=(f"bugs:{len(bugs)}", *sorted({bug.mutation.kind for bug in bugs})),
    )


@functools.cache
def _bugs_of(split: str) -> list[Bug]:
    wanted = split == "test"
    return [bug for bug in _known()[0] if (derive_seed("swe split", bug.place) % _TEST_SHARE == 0) is wanted]


@functools.cache
def _known() -> tuple[list[Bug], tuple[str, ...]]:
    """All bugs, and all tests."""
    data = json.loads(BUGS.read_text("utf-8"))
    return [bug_from(entry) for entry in data["bugs"]], tuple(data["tests"])
