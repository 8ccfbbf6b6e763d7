"""Dockerfiles read as what they do: which base, which commands and copies, in which folder, with which variables.

Knows the language. What an instruction asks for and cannot be done without an image builder is `Unsupported`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from agent_rl.errors import UserError
from agent_rl_envs.terminal.problems import Unsupported

_VARIABLE = re.compile(r"\\\$|\$(?:(\w+)|\{(\w+)(?:(:[-+])([^}]*))?\})")
_NOTHING_TO_DO = {"CMD", "EXPOSE", "LABEL", "MAINTAINER", "STOPSIGNAL", "HEALTHCHECK", "VOLUME"}
_SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash", "/usr/bin/bash", "-c", "-l", "-lc"}


@dataclass(frozen=True, slots=True)
class Run:
    """A command: text for a shell, or a list."""

    command: str | tuple[str, ...]
    shell: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]
    line: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Files of the context. `target` is absolute; it is a folder for certain if it ends with a slash."""

    sources: tuple[str, ...]
    target: str
    mode: str
    line: int


@dataclass(slots=True)
class Dockerfile:
    """What it does, in order, and what it leaves behind."""

    base: str = ""
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=dict[str, str])
    steps: list[Run | Copy] = field(default_factory=list[Run | Copy])
    arguments: dict[str, str] = field(default_factory=dict[str, str])
    shell: tuple[str, ...] = ("/bin/sh", "-c")


def read_dockerfile(path: Path) -> Dockerfile:
    """Raises `UserError` for what is no Dockerfile, and `Unsupported`."""
    found = Dockerfile()
    for line, name, rest in _instructions(path.read_text("utf-8")):
        try:
            _apply(found, name, rest, line)
        except Unsupported as error:
            raise Unsupported(f"Dockerfile, line {line}: {error}") from error
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {name} cannot be read ({error}).") from error
    if not found.base:
        raise UserError(f"{path}: there is no FROM.")
    return found


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, name and the rest, with continued lines joined and comments left out."""
    joined, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start if joined else number
        joined += line
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        name, _, rest = joined.strip().partition(" ")
        yield start, name.upper(), rest.strip()
        joined = ""
    if joined:
        raise UserError("The last line of the Dockerfile ends with a backslash: nothing follows it.")


def _apply(found: Dockerfile, name: str, rest: str, line: int) -> None:
    if not found.base and name not in ("FROM", "ARG"):
        raise Unsupported(f"{name} before FROM")
    if "<<" in rest and name in ("RUN", "COPY", "ADD") and re.search(r"<<-?['\"]?\w", rest):
        raise Unsupported("documents within a Dockerfile (<<) need docker to build them")
    if name == "FROM":
        _from(found, rest)
    elif name == "RUN":
        found.steps.append(_run(found, rest, line))
    elif name in ("COPY", "ADD"):
        found.steps.append(_copy(found, rest, line))
    elif name == "ENV":
        found.environment.update(_pairs(rest, _known(found)))
    elif name == "ARG":
        key, _, default = _filled(rest, _known(found)).partition("=")
        found.arguments.setdefault(key, shlex.split(default)[0] if default else "")
    elif name == "WORKDIR":
        found.folder = _absolute(_filled(rest, _known(found)).strip("\"'"), found.folder)
        found.steps.append(Run(("mkdir", "-p", found.folder), (), "/", {}, line))
    elif name == "SHELL":
        found.shell = tuple(_json_list(rest) or ())
    elif name == "USER":
        if rest.split(":")[0] not in ("root", "0"):
            raise Unsupported(f"USER {rest}: the only user is root")
    elif name == "ENTRYPOINT":
        if not set(_json_list(rest) or shlex.split(rest)) <= _SHELLS:
            raise Unsupported(f"ENTRYPOINT {rest}: nothing is started before the agent")
    elif name not in _NOTHING_TO_DO:
        raise Unsupported(f"{name} is not known")


def _from(found: Dockerfile, rest: str) -> None:
    if found.base:
        raise Unsupported("several stages (FROM) need docker to build them")
    words = [word for word in _filled(rest, found.arguments).split() if not word.startswith("--")]
    if not words:
        raise ValueError("it names no image")
    found.base = words[0]


def _run(found: Dockerfile, rest: str, line: int) -> Run:
    if rest.startswith("--"):
        raise Unsupported(f"RUN {rest.split()[0]}: mounts and networks of single commands need docker")
    command = _json_list(rest)
    return Run(tuple(command) if command else rest, found.shell, found.folder, _known(found), line)


def _copy(found: Dockerfile, rest: str, line: int) -> Copy:
    rest = _filled(rest, _known(found))
    mode = ""
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        rest = rest.lstrip()
        key, _, value = option.partition("=")
        if key == "--chmod":
            mode = value
        elif key != "--chown" or value.split(":")[0] not in ("root", "0"):
            raise Unsupported(f"COPY {option}")
    words = _json_list(rest) or shlex.split(rest)
    if len(words) < 2:
        raise ValueError("it needs a source and a target")
    if any("://" in word or word.startswith("git@") for word in words[:-1]):
        raise Unsupported("ADD of an address needs the network")
    target = _absolute(words[-1], found.folder)
    is_folder = words[-1].endswith(("/", "/.")) or words[-1] in (".", "./") or len(words) > 2
    return Copy(tuple(words[:-1]), target.rstrip("/") + "/" if is_folder else target, mode, line)


def _known(found: Dockerfile) -> dict[str, str]:
    return {**found.arguments, **found.environment}


def _pairs(text: str, known: Mapping[str, str]) -> dict[str, str]:
    """`A=1 B="two words"`, or the old `A one value`."""
    first = text.split(None, 1)
    if "=" not in first[0]:
        return {first[0]: _filled(first[1], known)}
    return {key: _filled(value, known) for key, _, value in (word.partition("=") for word in shlex.split(text))}


def _filled(text: str, known: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[0] == "\\$":
            return "$"
        there = known.get(match[1] or match[2], "")
        if match[3] == ":-":
            return there or match[4]
        return (match[4] if there else "") if match[3] == ":+" else there

    return _VARIABLE.sub(value, text)


def _absolute(path: str, folder: str) -> str:
    return str(Path(folder) / path)


def _json_list(text: str) -> list[str] | None:
    """The words of a list in JSON; `None` where it is none."""
    try:
        value = json.loads(text) if text.startswith("[") else None
    except ValueError:
        return None
    words = cast(list[object], value) if isinstance(value, list) else None
    return [str(word) for word in words] if words else None
