"""Diffs: what they touch, how alike they are, and which files an attempt may not change."""

import subprocess
from pathlib import Path

import pytest

from agent_rl_envs.swe.commands import apply
from agent_rl_envs.swe.patches import by_file, is_protected, similarity, touched, unified_diff

OLD = "one\ntwo\nthree\nfour\n"
NEW = "one\n2\nthree\nfour\n"


def test_files_of_a_diff():
    patch = (
        unified_diff("src/a.py", OLD, NEW) + unified_diff("b c.py", None, "x\n") + unified_diff("gone.py", "y\n", None)
    )
    assert touched(patch) == ("src/a.py", "b c.py", "gone.py")
    assert touched("--- a/old.py\t2020-01-01\n+++ b/old.py\t2020-01-01\n@@ -1 +1 @@\n-a\n+b\n") == ("old.py",)
    assert touched("") == ()


def test_a_removed_line_that_looks_like_a_header_is_no_header():
    patch = unified_diff("q.sql", "-- comment\nselect 1\n", "select 1\n")
    assert by_file(patch) == {"q.sql": "--- comment\n select 1"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD, NEW),
        (OLD, OLD[:-1]),
        (OLD[:-1], NEW),
        (None, "x"),
        ("a\x0c\u2028b\nc\n", "a\x0cb\nc\n"),
        ("a\r\nb\r\n", "a\r\nc\r\n"),
        ("x\n", None),
        ("a\n", "a\nb"),
        ("", "x\n"),
    ],
)
def test_git_applies_what_is_written(tmp_path: Path, old: str | None, new: str | None):
    file = tmp_path / "below" / "f.txt"
    file.parent.mkdir()
    if old is not None:
        file.write_bytes(old.encode())
    apply(unified_diff("below/f.txt", old, new), tmp_path)
    assert (file.read_bytes().decode() if file.exists() else None) == new


def test_a_repository_around_it_does_not_matter(tmp_path: Path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "f.txt").write_text(OLD)
    apply(unified_diff("f.txt", OLD, NEW), folder)
    assert (folder / "f.txt").read_text() == NEW


def test_similarity_of_equal_and_of_other_patches():
    gold = unified_diff("a.py", OLD, NEW)
    assert similarity(gold, gold) == 1.0
    assert similarity("", gold) == 0.0
    assert similarity("", "") == 0.0
    assert similarity(unified_diff("b.py", OLD, NEW), gold) == 0.0
    near = similarity(unified_diff("a.py", OLD, NEW.replace("2", "II")), gold)
    assert 0.5 < near < 1.0


def test_each_file_of_either_weighs_the_same():
    """SWE-RL averages over the union of files."""
    gold = unified_diff("a.py", OLD, NEW) + unified_diff("b.py", OLD, NEW)
    assert similarity(unified_diff("a.py", OLD, NEW), gold) == 0.5
    three = gold + unified_diff("c.py", OLD, NEW)
    assert similarity(three, unified_diff("a.py", OLD, NEW)) == pytest.approx(1 / 3)


def test_the_ratio_is_difflibs():
    """Worked out by hand: 2 * matching characters / all characters."""
    one, other = unified_diff("a", "x\n", "ab\n"), unified_diff("a", "x\n", "ac\n")
    assert by_file(one) == {"a": "-x\n+ab"}
    assert similarity(one, other) == pytest.approx(2 * 5 / 12)


@pytest.mark.parametrize(
    ("path", "protected"),
    [
        ("src/pkg/core.py", False),
        ("setup.py", False),
        ("src/testing_tools.py", False),
        ("src/contest/a.py", False),
        ("latest.py", False),
        ("tests/data/a.json", True),
        ("pkg/test/helper.py", True),
        ("test_root.py", True),
        ("pkg/a_test.py", True),
        ("deep/conftest.py", True),
        ("pytest.ini", True),
        ("x/pytest.toml", True),
        ("setup.cfg", True),
        ("pyproject.toml", True),
        ("src/sitecustomize.py", True),
        ("a.pth", True),
        ("x.dist-info/entry_points.txt", True),
        ("src/x.egg-info/entry_points.txt", True),
        ("src/core.pyc", True),
        (".venv/bin/python", True),
        ("lib/site-packages/pytest.py", True),
    ],
)
def test_protected_files(path: str, protected: bool):
    assert is_protected(path) is protected
