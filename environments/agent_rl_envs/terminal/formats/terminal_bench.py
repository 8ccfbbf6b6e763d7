"""Task directories of Terminal-Bench 1: `task.yaml`, `Dockerfile`, `run-tests.sh`, `tests/`, `solution.sh`."""

from __future__ import annotations

from pathlib import Path

from agent_rl.errors import UserError
from agent_rl_envs.terminal.formats.compose import read_compose
from agent_rl_envs.terminal.formats.table import Table, load_yaml
from agent_rl_envs.terminal.problems import Problem, Script, Unsupported, World, files_below

MARK = "task.yaml"
_TESTS, _SOLUTION = "/tests", "/oracle"
_HIDDEN = ("tests", "run-tests.sh", "solution.sh", "solution.yaml", "task.yaml", "docker-compose.yaml", ".git")
_NOTES = (
    "author_name author_email category estimated_duration_sec expert_time_estimate_min junior_time_estimate_min "
    "disable_asciinema tags"
).split()


def read_terminal_bench(folder: Path) -> Problem:
    """Raises `UserError` for what is broken, `Unsupported` for what cannot be run here."""
    path = folder / MARK
    root = Table(load_yaml(path), path)
    instruction = root.take("instruction", str, "").strip()
    if not instruction:
        raise root.wrong("instruction", "is missing")
    if (parser := root.take("parser_name", str, "pytest")) != "pytest":
        raise Unsupported(f"parser_name: only what pytest prints is read, not what {parser} prints")
    root.refuse({"run_tests_in_same_shell": "tests are not run in the agent's own shell"})
    tests = {f"{name}": found for name, found in files_below(folder / "tests").items()}
    if not (folder / "run-tests.sh").is_file():
        raise UserError(f"{folder / 'run-tests.sh'} is missing: a task of Terminal-Bench is checked by it.")
    tests["run-tests.sh"] = folder / "run-tests.sh"
    if not (folder / "Dockerfile").is_file():
        raise UserError(f"{folder / 'Dockerfile'} is missing.")
    compose = folder / "docker-compose.yaml"
    variables = read_compose(compose, "client") if compose.is_file() else {}
    problem = Problem(
        id=folder.name,
        folder=folder,
        layout="terminal_bench",
        instruction=instruction,
        world=World(context=folder, hidden=_HIDDEN, environment=variables),
        checker=Script(
            tests, _TESTS, "run-tests.sh", {"TEST_DIR": _TESTS}, timeout_s=root.positive("max_test_timeout_sec", 60.0)
        ),
        solution=_solution(folder),
        agent_timeout_s=root.positive("max_agent_timeout_sec", 360.0),
        tags=tuple(f"{name}:{value}" for name in ("difficulty",) if (value := root.take(name, str, ""))),
    )
    root.ignore(_NOTES)
    root.end()
    return problem


def _solution(folder: Path) -> Script | None:
    """The script; the keystrokes of a `solution.yaml` are none."""
    if (folder / "solution.sh").is_file():
        return Script({"solution.sh": folder / "solution.sh"}, _SOLUTION, "solution.sh")
    return None
