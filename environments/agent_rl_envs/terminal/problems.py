"""A shell task as both directory formats describe it: what to do, where, how it is checked and how it can be solved."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

Layout: TypeAlias = Literal["harbor", "terminal_bench"]


class Unsupported(Exception):
    """Something that a task asks for and that cannot be given here: the message says what and why."""


@dataclass(frozen=True, slots=True)
class Script:
    """Files of the task's author that are put into the agent's system, and the one of them that is run."""

    files: Mapping[str, Path]
    target: str
    main: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = 600.0

    @property
    def path(self) -> str:
        """Where the script is."""
        return f"{self.target}/{self.main}"

    def packed(self) -> bytes:
        """A tar of the files, all of them readable and scripts executable, as root's."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, path in sorted(self.files.items()):
                entry = tar.gettarinfo(path, name)
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = "root"
                entry.mode |= 0o755 if name.endswith(".sh") else 0o644
                with path.open("rb") as content:
                    tar.addfile(entry, content)
        return packed.getvalue()


@dataclass(frozen=True, slots=True)
class World:
    """What the agent finds. `context` is the folder with the Dockerfile, `hidden` what is not built from in it."""

    image: str = ""
    context: Path | None = None
    hidden: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    wants_network: bool = True
    memory_mb: int = 2048
    cpus: float = 1.0
    disk_mb: int = 10240


@dataclass(frozen=True, slots=True)
class Problem:
    """One task, in its folder."""

    id: str
    folder: Path
    layout: Layout
    instruction: str
    world: World
    checker: Script
    solution: Script | None
    agent_timeout_s: float | None
    tags: tuple[str, ...] = ()


def files_below(folder: Path) -> dict[str, Path]:
    """All files of a folder by their path in it; links that lead out of it are left out."""
    root = folder.resolve()
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if path.resolve().is_relative_to(root)}
