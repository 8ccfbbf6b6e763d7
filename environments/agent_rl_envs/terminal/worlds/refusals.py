"""Which tasks cannot be run here, and why: without docker, or without a network.

Reads what Dockerfiles and checkers say they do. A checker that hides a download in a program of its own is found out
when it runs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

from agent_rl_envs.terminal.problems import Problem
from agent_rl_envs.terminal.worlds.dockerfile import Run, read_dockerfile

_INSTALLS = re.compile(
    r"(?<![\w/.-])(apt-get|apt|apk|dnf|yum|pip3?|uv|npm|gem|cargo|conda)\s+(\S+\s+)*?(install|update|add|sync)\b"
)
_DOWNLOADS = re.compile(r"(?<![\w/.-])(curl|wget|uvx|git\s+clone)\s")


def why_not_local(problem: Problem, bases: Collection[str], network: bool) -> str | None:
    """Why a task cannot be run without docker. Raises `Unsupported` and `UserError` too."""
    world = problem.world
    if world.context is None:
        return f"its image {world.image} comes without a Dockerfile: take the sandbox docker"
    if (world.context / ".dockerignore").is_file():
        return ".dockerignore is read by docker only"
    recipe = read_dockerfile(world.context / "Dockerfile")
    name = recipe.base.partition("@")[0]
    if name not in bases and name.rpartition(":")[0] not in bases:
        return f"FROM {recipe.base}: `bases` does not say that this machine has the tools of that image"
    for step in recipe.steps:
        if isinstance(step, Run):
            command = step.command if isinstance(step.command, str) else shlex.join(step.command)
            if needed := _needs(command, network):
                return f"Dockerfile, line {step.line}: {needed}"
    return _checker_needs(problem, network)


def why_not_docker(problem: Problem, network: bool) -> str | None:
    """Why a task cannot be run in a container without a network; with one, all can."""
    world = problem.world
    wants = "needs the network, which containers have with `sandbox.network` only"
    texts = [problem.checker.files[problem.checker.main]]
    if world.context is not None and not world.image:
        texts.append(world.context / "Dockerfile")
    for path in texts if not network else ():
        if found := _commands_of(path.read_text("utf-8", "replace"), _INSTALLS, _DOWNLOADS):
            return f"{path.name}: `{found}` {wants}"
    return None


def _checker_needs(problem: Problem, network: bool) -> str | None:
    script = problem.checker.files[problem.checker.main]
    needed = _needs(script.read_text("utf-8", "replace"), network)
    return f"{script.name}: {needed}" if needed else None


def _needs(commands: str, network: bool) -> str | None:
    if found := _commands_of(commands, _INSTALLS):
        return f"`{found}` would change this machine's programs, which are read-only: take docker"
    if not network and (found := _commands_of(commands, _DOWNLOADS)):
        return f"`{found}` needs the network, which sandboxes have with `sandbox.network` only"
    return None


def _commands_of(text: str, *kinds: re.Pattern[str]) -> str:
    """The first command of these kinds that is not in a comment."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = next((match for kind in kinds if (match := kind.search(lines))), None)
    return " ".join(found[0].split()) if found else ""
