"""Task directories of Harbor: `instruction.md`, `task.toml`, `environment/`, `tests/test.sh`, `solution/solve.sh`.

Reads schema 1.x, deprecated keys included: https://harborframework.com/docs/tasks. What it describes and cannot be
given here is refused by name: a task that runs differently from what its author meant is worse than one left out.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from agent_rl.errors import UserError
from agent_rl_envs.terminal.formats.compose import read_compose
from agent_rl_envs.terminal.formats.table import Table
from agent_rl_envs.terminal.problems import Problem, Script, Unsupported, World, files_below

MARK = "task.toml"
_TESTS, _SOLUTION = "/tests", "/solution"
_ONE_STEP = {
    "steps": "tasks of several steps are not run here",
    "multi_step_reward_strategy": "tasks of several steps are not run here",
}
_NO_DEVICES = {
    "gpus": "sandboxes have no GPU",
    "tpu": "sandboxes have no TPU",
    "mcp_servers": "MCP servers are not started beside the task",
    "healthcheck": "nothing is waited for after the start",
    "skills_dir": "the agent has no folder of skills",
}
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def read_harbor(folder: Path) -> Problem:
    """Raises `UserError` for what is broken, `Unsupported` for what cannot be run here."""
    path = folder / MARK
    try:
        root = Table(tomllib.loads(path.read_text("utf-8")), path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this is not TOML ({error}).") from error
    root.ignore(("version", "schema_version", "source", "artifacts", "task"))
    root.refuse(_ONE_STEP)
    metadata = root.table("metadata")
    agent, verifier, solution = root.table("agent"), root.table("verifier"), root.table("solution")
    timeout_s = agent.positive("timeout_sec", 0.1) if agent.take("timeout_sec", float, 0.0) else None
    _same_user(agent)
    agent.end()
    checker = _checker(folder, verifier)
    problem = Problem(
        id=folder.name,
        folder=folder,
        layout="harbor",
        instruction=_instruction(folder),
        world=_world(folder, root.table("environment")),
        checker=checker,
        solution=_solution(folder, solution),
        agent_timeout_s=timeout_s,
        tags=tuple(f"{name}:{value}" for name in ("difficulty", "category") if (value := metadata.take(name, str, ""))),
    )
    root.end()
    return problem


def _instruction(folder: Path) -> str:
    path = folder / "instruction.md"
    if not path.is_file():
        raise UserError(f"{path} is missing: a Harbor task has its instruction there.")
    return path.read_text("utf-8").strip()


def _checker(folder: Path, table: Table) -> Script:
    tests = folder / "tests"
    if not (tests / "test.sh").is_file():
        raise UserError(f"{tests / 'test.sh'} is missing: a Harbor task is checked by it.")
    table.refuse(
        {
            "environment": "a separate system for the verifier is not made",
            "collect": "hooks that collect artifacts are not run",
            "import_path": "verifiers that are code of Harbor's are not run",
        }
    )
    if table.take("environment_mode", str, "shared") != "shared":
        raise Unsupported("verifier.environment_mode: a separate system for the verifier is not made")
    _same_user(table)
    script = Script(
        files_below(tests), _TESTS, "test.sh", _variables(table, "env"), timeout_s=table.positive("timeout_sec", 600.0)
    )
    table.end()
    return script


def _solution(folder: Path, table: Table) -> Script | None:
    variables = _variables(table, "env")
    table.end()
    if not (folder / "solution" / "solve.sh").is_file():
        return None
    return Script(files_below(folder / "solution"), _SOLUTION, "solve.sh", variables)


def _same_user(table: Table) -> None:
    """Agent and verifier are root; who may use the network is said once, for all."""
    user = table.take("user", object, "root")
    if str(user) not in ("root", "0"):
        raise Unsupported(f"{table.where('user')}: agent and verifier are root here, not {user}")
    table.ignore(("network_mode", "allowed_hosts"))


def _world(folder: Path, table: Table) -> World:
    table.refuse(_NO_DEVICES)
    table.ignore(("build_timeout_sec", "gpu_types"))
    if table.take("os", str, "linux").lower() != "linux":
        raise Unsupported("environment.os: only Linux is run here")
    mode = table.take("network_mode", str, "public" if table.take("allow_internet", bool, True) else "no-network")
    if mode == "allowlist" or table.take("allowed_hosts", list, []):
        raise Unsupported("environment.network_mode: a list of allowed hosts is not enforced")
    variables = _variables(table, "env")
    context = folder / "environment"
    for name in ("docker-compose.yaml", "docker-compose.yml"):
        if (context / name).is_file():
            variables = {**read_compose(context / name, "main"), **variables}
    image = table.take("docker_image", str, "")
    has_dockerfile = (context / "Dockerfile").is_file()
    if not image and not has_dockerfile:
        raise UserError(f"{context / 'Dockerfile'} is missing, and {table.path} names no environment.docker_image.")
    world = World(
        image=image,
        context=context if has_dockerfile else None,
        environment=variables,
        wants_network=mode != "no-network",
        memory_mb=_size(table, "memory", 2048),
        cpus=table.positive("cpus", 1.0),
        disk_mb=_size(table, "storage", 10240),
    )
    if table.take("workdir", str, ""):
        raise Unsupported("environment.workdir: the working folder is that of the image")
    table.end()
    return world


def _size(table: Table, name: str, default: int) -> int:
    """`memory_mb = 2048`, or as it was written before: `memory = "2G"`."""
    old = table.take(name, str, "").strip().upper()
    if not old:
        return int(table.positive(f"{name}_mb", default))
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([GMK])I?B?", old)
    if not match:
        raise table.wrong(name, f"must be a size such as 2G or 512M, not {old!r}")
    return max(1, int(float(match[1]) * {"G": 1024, "M": 1, "K": 1 / 1024}[match[2]]))


def _variables(table: Table, name: str) -> dict[str, str]:
    """Variables; those that Harbor would take from its host's environment are refused unless they have a default."""

    def filled(match: re.Match[str]) -> str:
        if match[2] is None:
            raise Unsupported(f"{table.where(name)}: {match[0]} is a variable of the host's, which stay there")
        return match[2]

    return {key: _VARIABLE.sub(filled, value) for key, value in table.strings(name).items()}
