"""Rows of data sets as problems, each format as it is published.

`tasks` is what the task factory writes: SWE-bench's fields and those that a machine without docker needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

from agent_rl.rows import Row
from agent_rl_envs.swe.patches import touched, unified_diff
from agent_rl_envs.swe.problems import Problem, Source, files_of

Format: TypeAlias = Literal["tasks", "swe_bench", "swe_gym", "r2e"]

_IMAGES = {"swe_bench": ("swebench/sweb.eval.x86_64.", "_1776_"), "swe_gym": ("xingyaoww/sweb.eval.x86_64.", "_s_")}
_R2E_TESTS = "r2e_tests"
_REPORTED = re.compile(r"^(PASSED|XFAIL) \S*?::(.+?)(?: - .*)?$", re.MULTILINE)


def problem_of(row: Row, format: Format, *, images: bool = False) -> Problem | None:
    """The problem of a row; `images`: its repository is taken from a docker image, as published with the data set.

    `None` for what cannot be graded: tests that no test of pytest's is called like (Django's own runner).
    Raises `UserError` that names file, line and field.
    """
    if format == "tasks":
        return _task(row)
    problem = _r2e(row, images) if format == "r2e" else _swe_bench(row, format, images)
    return None if any(" (" in test and "::" not in test for test in problem.fail_to_pass) else problem


def to_row(problem: Problem) -> dict[str, Any]:
    """A row of format `tasks`."""
    source = problem.source
    return {
        "instance_id": problem.id,
        "repo": source.name,
        "base_commit": source.commit,
        "version": source.version,
        "problem_statement": problem.statement,
        "hints_text": problem.hints,
        "patch": problem.patch,
        "test_patch": problem.test_patch,
        "FAIL_TO_PASS": json.dumps(problem.fail_to_pass),
        "PASS_TO_PASS": json.dumps(problem.pass_to_pass),
        "bug_patch": problem.bug_patch,
        "source": source.kind,
        "requires": list(source.requires),
        "python_path": list(source.python_path),
        "test_files": list(problem.test_files),
        "driver": problem.driver,
        "timeout_s": problem.timeout_s,
        "tags": list(problem.tags),
    }


def _task(row: Row) -> Problem:
    kind, driver = row.field("source", str), row.field("driver", str, "pytest")
    if kind not in ("sample", "package", "git", "image"):
        raise row.bad("source", f"{kind!r} is none of sample, package, git and image")
    if driver not in ("pytest", "unittest"):
        raise row.bad("driver", f"{driver!r} is neither pytest nor unittest")
    source = Source(
        kind,
        row.field("repo", str, ""),
        row.field("base_commit", str, ""),
        row.field("version", str, ""),
        requires=_strings(row, "requires"),
        python_path=_strings(row, "python_path"),
    )
    return _problem(
        row,
        source,
        bug_patch=row.field("bug_patch", str, ""),
        test_files=_strings(row, "test_files"),
        driver=driver,
        timeout_s=row.field("timeout_s", float, 0.0),
        tags=_strings(row, "tags"),
    )


def _swe_bench(row: Row, format: Format, images: bool) -> Problem:
    repo, version = row.field("repo", str), row.field("version", str, "")
    if images:
        prefix, dunder = _IMAGES[format]
        id = row.field("instance_id", str)
        image = row.field("image_name", str, "") or f"{prefix}{id.replace('__', dunder)}:latest".lower()
        source = Source("image", image)
    else:
        address = repo if repo.startswith(("/", ".")) or "://" in repo else f"https://github.com/{repo}.git"
        source = Source("git", address, row.field("base_commit", str), version)
    difficulty = row.field("difficulty", str, "")
    return _problem(row, source, tags=tuple(tag for tag in (repo, difficulty) if tag))


def _problem(row: Row, source: Source, **more: Any) -> Problem:
    """The fields that all have in common. Tests without a file are those of the only file that is patched."""
    test_patch = row.field("test_patch", str, "")
    files = tuple(path for path in touched(test_patch) if path.endswith(".py"))
    if not more.get("test_files"):
        named = files_of([test for name in ("FAIL_TO_PASS", "PASS_TO_PASS") for test in _tests(row, name)])
        more["test_files"] = tuple(path for path in named if path.endswith(".py")) or files
    fail_to_pass = _tests(row, "FAIL_TO_PASS")
    if not fail_to_pass:
        raise row.bad("FAIL_TO_PASS", "there is no test in it")
    return Problem(
        id=row.field("instance_id", str),
        statement=row.field("problem_statement", str),
        source=source,
        fail_to_pass=fail_to_pass,
        pass_to_pass=_tests(row, "PASS_TO_PASS"),
        patch=row.field("patch", str, ""),
        test_patch=test_patch,
        hints=row.field("hints_text", str, ""),
        **more,
    )


def _tests(row: Row, name: str) -> tuple[str, ...]:
    return _listed(row, name, row.json(name, list[Any], list[Any]()))


def _strings(row: Row, name: str) -> tuple[str, ...]:
    return _listed(row, name, row.field(name, list[Any], list[Any]()))


def _listed(row: Row, name: str, values: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise row.bad(name, "it must be a list of texts")
    return tuple(values)


# --- R2E-Gym --------------------------------------------------------------------------------------------------------


def _r2e(row: Row, images: bool) -> Problem:
    """Hidden tests are given as code; which pass is told by name, without files."""
    repo, commit = row.field("repo_name", str), row.field("commit_hash", str)
    executed = cast("Mapping[str, Any]", row.json("execution_result_content", dict))
    expected = cast("Mapping[str, Any]", row.json("expected_output_json", dict))
    try:
        names, codes = cast("list[str]", executed["test_file_names"]), cast("list[str]", executed["test_file_codes"])
        files = {f"{_R2E_TESTS}/{name.rpartition('/')[2]}": code for name, code in zip(names, codes, strict=True)}
    except (KeyError, TypeError, ValueError) as error:
        raise row.bad("execution_result_content", f"it has no test_file_names and test_file_codes ({error})") from error
    before = _passed(str(executed.get("old_commit_res_stdout") or ""))
    should = [_plain(test) for test, status in expected.items() if status in ("PASSED", "XFAIL")]
    if not should:
        raise row.bad("expected_output_json", "no test in it passes")
    if images:
        source = Source("image", row.field("docker_image", str))
    else:
        address = repo if repo.startswith(("/", ".")) or "://" in repo else _r2e_address(row, repo)
        source = Source("git", address, f"{commit}^")
    return Problem(
        id=f"{repo.rpartition('/')[2]}-{commit[:12]}",
        statement=row.field("problem_statement", str),
        source=source,
        fail_to_pass=tuple(test for test in should if test not in before) or tuple(should),
        pass_to_pass=tuple(test for test in should if test in before),
        patch=_r2e_patch(row),
        test_patch="".join(unified_diff(path, None, code) for path, code in files.items()),
        test_files=tuple(path for path in files if path.rpartition("/")[2].startswith("test")),
        tags=(repo,),
    )


_R2E_OWNERS = {
    "aiohttp": "aio-libs/aiohttp",
    "bokeh": "bokeh/bokeh",
    "coveragepy": "nedbat/coveragepy",
    "datalad": "datalad/datalad",
    "numpy": "numpy/numpy",
    "orange3": "biolab/orange3",
    "pandas": "pandas-dev/pandas",
    "pillow": "python-pillow/Pillow",
    "pyramid": "Pylons/pyramid",
    "scrapy": "scrapy/scrapy",
    "statsmodels": "statsmodels/statsmodels",
    "sympy": "sympy/sympy",
    "tornado": "tornadoweb/tornado",
}


def _r2e_address(row: Row, repo: str) -> str:
    owned = _R2E_OWNERS.get(repo, repo)
    if "/" not in owned:
        raise row.bad("repo_name", f"where {repo!r} can be cloned from is not known: give owner/name, or use images")
    return f"https://github.com/{owned}.git"


def _passed(output: str) -> set[str]:
    return {_plain(match[2]) for match in _REPORTED.finditer(output)}


def _plain(test: str) -> str:
    """`TestCase.test_x`, as R2E calls tests: without colours, colons and reasons."""
    return re.sub(r"\x1b\[[0-9;]*m", "", test).replace("::", ".").partition(" - ")[0].strip()


def _r2e_patch(row: Row) -> str:
    """The commit's own changes, without those of tests; empty where the row does not have it."""
    if "parsed_commit_content" not in row:
        return ""
    commit = cast("Mapping[str, Any]", row.json("parsed_commit_content", dict))
    diffs: list[str] = []
    for entry in cast("list[Mapping[str, Any]]", commit.get("file_diffs") or []):
        try:
            path = str(entry["header"]["file"]["path"])
        except (KeyError, TypeError) as error:
            raise row.bad("parsed_commit_content", f"a file of it has no path ({error})") from error
        old, new = entry.get("old_file_content"), entry.get("new_file_content")
        if "test" not in path:
            diffs.append(unified_diff(path, old or None, new or None))
    return "".join(diffs)
