"""What an agent is told after an attempt that failed: Agent-RLVR (arXiv:2506.11425), section 3. Pure functions.

The teacher's hints are made of what grading knows: which tests fail, with which error, and where the solution is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypeAlias

from agent_rl_envs.swe.judge import Verdict
from agent_rl_envs.swe.patches import touched
from agent_rl_envs.swe.problems import Problem

Hint: TypeAlias = Literal["tests", "errors", "files"]

_MAX_TESTS, _MAX_ERROR = 5, 300
_ENDS = {
    "late": "The tests did not end in time.",
    "flooded": "The tests reported without end.",
    "failed": "The tests could not be run to their end.",
    "died": "The tests brought down the machine that they ran on.",
    "tampered": "The tests were tampered with: tests that must fail did not.",
}


def guidance(verdict: Verdict, problem: Problem, hints: Collection[Hint], changed: bool) -> str:
    """The message that another attempt begins with."""
    if not changed:
        first = "Nothing was submitted: no file was changed that is graded (tests and settings of tests are not)."
    else:
        first = f"{len(verdict.failing)} of the tests still fail." if verdict.failing else "The attempt failed."
    parts = [first, _ENDS.get(verdict.run.status, "")]
    if "tests" in hints:
        tests = verdict.failing or (() if changed else problem.fail_to_pass)
        parts.append(_listed("Tests that have to pass:", tests))
    if "errors" in hints:
        parts.append(_listed("What went wrong:", _errors(verdict)))
    if "files" in hints:
        parts.append(_listed("Files to look at:", touched(problem.patch)))
    parts.append("Go on from where you are, and submit again.")
    return "\n".join(part for part in parts if part)


def _errors(verdict: Verdict) -> list[str]:
    run = verdict.run
    found = [
        f"{test}: {failure.error}: {_short(failure.message)}"
        for test in verdict.failing
        if (failure := run.failures.get(test)) is not None
    ]
    return found + [f"{path} cannot be loaded: {_last_line(text)}" for path, text in run.broken_files.items()]


def _listed(title: str, entries: Collection[str]) -> str:
    if not entries:
        return ""
    shown = [f"- {entry}" for entry in list(entries)[:_MAX_TESTS]]
    more = [f"- and {len(entries) - _MAX_TESTS} more"] if len(entries) > _MAX_TESTS else []
    return "\n".join([title, *shown, *more])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_ERROR else f"{line[:_MAX_ERROR]} ..."


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return _short(lines[-1]) if lines else "no reason was given"
