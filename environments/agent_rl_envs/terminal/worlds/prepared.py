"""Worlds ready to be entered: each made once, shared by all episodes, never written to."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import anyio

from agent_rl.concurrency import in_thread
from agent_rl.errors import UserError
from agent_rl.sandbox import SandboxConfig
from agent_rl_envs.cache import Cache, key_of, user_root
from agent_rl_envs.terminal.problems import Problem, World
from agent_rl_envs.terminal.worlds.dockerfile import read_dockerfile
from agent_rl_envs.terminal.worlds.local import build_root, unpack_root

Limits: TypeAlias = Literal["task", "sandbox"]
_TREE = "tree"


def is_docker(config: SandboxConfig) -> bool:
    """Whether tasks run in containers. Raises `UserError` for a sandbox in which they cannot run."""
    if config.kind not in ("auto", "bubblewrap", "docker"):
        raise UserError(f"Shell tasks run in the sandboxes bubblewrap and docker, not in {config.kind}.")
    return config.kind == "docker"


@dataclass(slots=True)
class Worlds:
    """`limits`: whether memory, processors and disk are what the task asks for, or the sandbox's."""

    root: Path
    sandbox: SandboxConfig
    limits: Limits
    timeout_s: float
    _ready: dict[tuple[str, Path], SandboxConfig] = field(default_factory=dict[tuple[str, Path], SandboxConfig])
    _locks: dict[tuple[str, Path], anyio.Lock] = field(default_factory=dict[tuple[str, Path], anyio.Lock])

    async def prepare(self, problem: Problem) -> SandboxConfig:
        """The sandbox that a task starts in. Raises `UserError`, `EnvironmentFailure` and `SandboxFailure`."""
        key = (problem.id, problem.folder)
        async with self._locks.setdefault(key, anyio.Lock()):
            if key not in self._ready:
                config = self._limited(problem.world)
                make = self._image if is_docker(config) else self._root
                self._ready[key] = await make(problem.world, config)
            return self._ready[key]

    def _limited(self, world: World) -> SandboxConfig:
        config = self.sandbox.model_copy(update={"writable": True})
        if not world.wants_network:
            config = config.model_copy(update={"network": False})
        if self.limits == "sandbox":
            return config
        limits = {"memory_mb": max(32, world.memory_mb), "cpus": world.cpus, "disk_mb": world.disk_mb}
        return config.model_copy(update={**limits, "max_file_mb": world.disk_mb})

    async def _root(self, world: World, config: SandboxConfig) -> SandboxConfig:
        assert world.context is not None, "tasks without a Dockerfile are refused when they are read"
        context = await self._context(world)
        recipe = read_dockerfile(context / "Dockerfile")
        key = key_of("1", await in_thread(partial(digest_of, context)), str(config.network))
        folder = self.root / "worlds" / key
        if not folder.exists():
            packed = await build_root(recipe, context, config, self.timeout_s)
            unpack = partial(_unpack, packed)
            folder = await in_thread(partial(Cache(self.root, self.timeout_s).moved, "worlds", key, unpack))
        variables = {**recipe.environment, **world.environment, **config.environment}
        return config.model_copy(update={"base": folder / _TREE, "workspace": recipe.folder, "environment": variables})

    async def _image(self, world: World, config: SandboxConfig) -> SandboxConfig:
        from agent_rl_sandboxes.docker_images import describe

        places = [world.image] if world.image else []
        if world.context is not None:
            places.append(str(await self._context(world)))
        found = await in_thread(partial(describe, places, network=config.network, timeout_s=self.timeout_s))
        variables = {**world.environment, **config.environment}
        return config.model_copy(update={"image": found.id, "workspace": found.folder or "/", "environment": variables})

    async def _context(self, world: World) -> Path:
        """The folder to build from: without what it must not have."""
        assert world.context is not None
        if not world.hidden:
            return world.context
        key = key_of(await in_thread(partial(digest_of, world.context)), *world.hidden)
        copy = partial(_copy_context, world)
        return await in_thread(partial(Cache(self.root, self.timeout_s).moved, "contexts", key, copy)) / _TREE


def _unpack(packed: bytes, part: Path) -> None:
    unpack_root(packed, part / _TREE)


def _copy_context(world: World, part: Path) -> None:
    assert world.context is not None
    top = str(world.context)

    def hidden(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if folder == top and name in world.hidden]

    shutil.copytree(world.context, part / _TREE, symlinks=True, ignore=hidden)


def digest_of(folder: Path) -> str:
    """Of all names, modes and contents. Blocks."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"{path.relative_to(folder)}\0{status.st_mode & 0o777777}\0{status.st_size}\0".encode())
        if path.is_symlink():
            digest.update(os.fsencode(path.readlink()))
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_root(chosen: Path | None) -> Path:
    """The folder of all that is prepared."""
    return chosen.absolute() if chosen is not None else user_root("terminal")
