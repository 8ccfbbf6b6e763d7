"""The house rules that no linter knows: sizes of files and functions, names, imports that only point down."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("agent_rl", "environments", "tools", "sandboxes", "recipes")
LONGEST_FILE, LONGEST_FUNCTION = 499, 79


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def relative(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_there_is_code_to_look_at():
    assert len(sources(*CODE)) > 30


def test_no_file_is_long():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in sources(*CODE, "benchmarks", "tests")}
    assert relative([path for path, lines in lengths.items() if lines > LONGEST_FILE]) == []


def test_no_function_is_long():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources(*CODE, "benchmarks")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def test_no_file_is_called_after_nothing():
    vague = {"util.py", "utils.py", "helpers.py", "misc.py", "common.py"}
    assert relative([path for path in sources(*CODE) if path.name in vague]) == []


def test_the_library_prints_only_through_the_command_line():
    printing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("agent_rl", "environments", "tools", "sandboxes")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_every_module_says_what_it_is_for():
    bare = [path for path in sources(*CODE) if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert relative(bare) == []


@pytest.mark.slow
def test_imports_point_down():
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command, "import-linter is part of the development extra"
    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout
