"""Unified diffs: which files they touch, how alike two are, which changes of an agent count. Pure functions.

Refuses to know how a diff is applied: that is git's work.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

_FILE = re.compile(r"^diff --git a/(.*?) b/(.*)$|^\+\+\+ (?:b/)?([^\t\n]*)|^--- (?:a/)?([^\t\n]*)", re.MULTILINE)
_TEST_FOLDERS = {"test", "tests", "testing", "e2e"}
_SETTINGS = {
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "tox.ini",
    "setup.cfg",
    "pyproject.toml",
    "sitecustomize.py",
    "usercustomize.py",
}
_ENVIRONMENTS = {".venv", "venv", "site-packages"}
_INSTALLED = (".pth", ".dist-info", ".egg-info", ".egg-link", ".pyc")
_LONGEST_COMPARED = 20_000  # characters; beyond that lines are compared


@dataclass(frozen=True, slots=True)
class Changes:
    """What an agent did to a repository: new content and deleted files, by path. `too_large`: more than is graded."""

    write: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    delete: tuple[str, ...] = ()
    too_large: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """All of its files."""
        return (*self.write, *self.delete)

    def without(self, paths: Collection[str]) -> Changes:
        """The changes of other files."""
        write = {path: content for path, content in self.write.items() if path not in paths}
        return Changes(write, tuple(path for path in self.delete if path not in paths), self.too_large)


def is_protected(path: str) -> bool:
    """Whether a file belongs to the tests, or says how they are run or what Python imports: attempts cannot change it.

    Tests are told by their folders, as SWE-bench does, and by pytest's names of files.
    """
    parts = PurePosixPath(path).parts
    name = parts[-1]
    return (
        bool((_TEST_FOLDERS | _ENVIRONMENTS) & set(parts[:-1]))
        or name in _SETTINGS
        or (name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py")))
        or any(part.endswith(_INSTALLED) for part in parts)
    )


def touched(patch: str) -> tuple[str, ...]:
    """The files that a diff is about, in order."""
    found: dict[str, None] = {}
    for match in _FILE.finditer(patch):
        found.update(dict.fromkeys(path for path in match.groups() if path and path != "/dev/null"))
    return tuple(found)


def by_file(patch: str) -> dict[str, str]:
    """The changed lines with their context, without headers, of each file of a diff."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    old, in_hunk = "", False
    for line in patch.removesuffix("\n").split("\n"):
        if line.startswith("diff --git ") or (not in_hunk and line.startswith("--- ")):
            in_hunk = False
            if line.startswith("--- "):
                old = _path_of(line)
        elif not in_hunk and line.startswith("+++ "):
            new = _path_of(line)
            lines = found.setdefault(old if new == "/dev/null" else new, [])
        elif line.startswith("@@"):
            in_hunk = True
        elif in_hunk and line[:1] in (" ", "+", "-", ""):
            lines.append(line)
    return {path: "\n".join(lines) for path, lines in found.items()}


def _path_of(line: str) -> str:
    path = line[4:].partition("\t")[0]
    return path[2:] if path.startswith(("a/", "b/")) else path


def similarity(predicted: str, gold: str) -> float:
    """How alike two patches are: `difflib`'s ratio of each file's diffs, averaged over the files of either.

    SWE-RL (arXiv:2502.18449), section 2.2: a file that only one of them touches counts 0.
    """
    ours, theirs = by_file(predicted), by_file(gold)
    paths = ours.keys() | theirs.keys()
    if not paths:
        return 0.0
    return sum(_ratio(ours[path], theirs[path]) for path in ours.keys() & theirs.keys()) / len(paths)


def _ratio(one: str, other: str) -> float:
    if len(one) + len(other) > _LONGEST_COMPARED:
        return difflib.SequenceMatcher(None, one.splitlines(), other.splitlines(), autojunk=False).ratio()
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def unified_diff(path: str, old: str | None, new: str | None) -> str:
    """The diff of one file as git writes it; `None`: there is none."""
    before, after = _lines(old or ""), _lines(new or "")
    names = (f"a/{path}" if old is not None else "/dev/null", f"b/{path}" if new is not None else "/dev/null")
    body = "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(before, after, *names)
    )
    if not body:
        return ""
    mode = "new file mode 100644\n" if old is None else "deleted file mode 100644\n" if new is None else ""
    return f"diff --git a/{path} b/{path}\n{mode}{body}"


def _lines(text: str) -> list[str]:
    """As git sees them: form feeds and the like end none."""
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, last] if last else lines
