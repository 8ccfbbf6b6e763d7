"""Environments that repositories run in: a virtual environment with their dependencies, and without themselves.

What is installed of the repository itself is removed but for its metadata: it is imported from the workspace, and its
installed copy would tell the solution. Building a package runs its code here, as every `pip install` does.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from agent_rl.errors import UserError
from agent_rl_envs.swe.commands import run

_TEST_GROUPS = ("test", "tests", "testing")
_REQUIREMENTS = (
    "requirements-test.txt",
    "requirements-tests.txt",
    "test-requirements.txt",
    "requirements/test.txt",
    "requirements/tests.txt",
    "tests/requirements.txt",
)
USED_BY_PYTEST = ("pytest", "pluggy", "packaging", "iniconfig", "pygments")


def make_environment(
    folder: Path, tree: Path, requires: Sequence[str], *, python: str, pip: Sequence[str], timeout_s: float
) -> None:
    """Fill `folder` with a virtual environment for the repository in `tree`. Raises `UserError`."""
    run([python, "-m", "venv", "--without-pip", str(folder)], timeout_s=timeout_s)
    command = [*pip, "--python", str(folder / "bin" / "python"), "install", "-q", "--no-input"]
    command.append("--disable-pip-version-check")
    wanted = ["pytest", *requires, *declared_test_requirements(tree)]
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / tree.name  # building leaves files behind
        shutil.copytree(tree, copy, symlinks=True)
        what = [str(copy)] if _is_package(copy) else []
        for path in _REQUIREMENTS:
            if (copy / path).is_file():
                what += ["-r", str(copy / path)]
        environment = {"SETUPTOOLS_SCM_PRETEND_VERSION": "0.0.1"} if not (copy / "PKG-INFO").exists() else {}
        run([*command, *what, *wanted], cwd=copy, environment=environment, timeout_s=timeout_s)
    for record in folder.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        if _is_of_tree(record.parent):
            _remove_modules(record)


def python_paths(tree: Path) -> tuple[str, ...]:
    """Where a repository is imported from: its `src`, if it has one, and itself."""
    return ("src", ".") if (tree / "src").is_dir() else (".",)


def declared_test_requirements(tree: Path) -> list[str]:
    """What pyproject.toml says that tests need, in extras and dependency groups called so."""
    try:
        settings: dict[str, Any] = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    extras = cast("Mapping[str, Sequence[str]]", settings.get("project", {}).get("optional-dependencies", {}))
    groups = cast("Mapping[str, Sequence[Any]]", settings.get("dependency-groups", {}))
    wanted = [line for name in _TEST_GROUPS for line in extras.get(name, ())]
    wanted += [line for name in _TEST_GROUPS for line in _group(groups, name, ())]
    return list(dict.fromkeys(wanted))


def _group(groups: Mapping[str, Sequence[Any]], name: str, above: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    for entry in groups.get(name, ()):
        if isinstance(entry, str):
            lines.append(entry)
        elif name not in above:
            lines += _group(groups, str(entry.get("include-group", "")), (*above, name))
    return lines


def _is_package(tree: Path) -> bool:
    return (tree / "pyproject.toml").is_file() or (tree / "setup.py").is_file()


def _is_of_tree(metadata: Path) -> bool:
    """Whether it was installed from a local folder, which is the repository."""
    try:
        return "dir_info" in json.loads((metadata / "direct_url.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False


def _remove_modules(record: Path) -> None:
    """Remove what was installed, except the metadata."""
    site, metadata = record.parent.parent, record.parent.name
    with record.open(encoding="utf-8", newline="") as file:
        for path, *_ in csv.reader(file):
            if not path.startswith((metadata, "..")):
                (site / path).unlink(missing_ok=True)
    (record.parent / "direct_url.json").unlink()


def check_testable(name: str) -> None:
    """Raises `UserError` for a package that pytest itself imports: a bug in it would be one of the grader's."""
    if name.lower().replace("_", "-") in USED_BY_PYTEST:
        raise UserError(f"{name} cannot be worked on: pytest imports it. Take another package.")
