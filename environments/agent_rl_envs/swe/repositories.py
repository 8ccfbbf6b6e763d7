"""Repositories ready to be worked on: a folder to start workspaces from, and what its tests are run with.

A tree is what a source has; a layer is a tree with the task's own state in it (a bug, hidden tests), committed as the
only history that there is. Layers are made once and never written to: a sandbox shows one as the base of its workspace.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent_rl.concurrency import in_thread
from agent_rl.errors import EnvironmentFailure, UserError
from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl_envs.cache import Cache, key_of, user_root
from agent_rl_envs.swe.commands import apply, commit_all
from agent_rl_envs.swe.inside import collect
from agent_rl_envs.swe.packages import make_environment, python_paths
from agent_rl_envs.swe.patches import Changes, touched, unified_diff
from agent_rl_envs.swe.problems import Problem, Source
from agent_rl_envs.swe.sources import fetch, tree_key
from agent_rl_sandboxes.supervised import find_python

_IMAGE_PYTHONS = ("/opt/miniconda3/envs/testbed/bin/python", "{folder}/.venv/bin/python", "/usr/bin/python3")
_LONGEST_TREE = 2**30
PREPARED = "prepared"
_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a repository runs with. `read_only` are host paths that sandboxes must show."""

    python: str
    read_only: tuple[str, ...] = ()
    python_path: tuple[str, ...] = (".",)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository in the state of a task. `graded` has the hidden tests too; `manifest` is for `inside/collect`."""

    folder: Path
    graded: Path
    manifest: Mapping[str, Any]
    runtime: Runtime

    def workspace(self, config: SandboxConfig, source: Source) -> SandboxConfig:
        """The sandbox that an agent works in."""
        return self._sandbox(config, source, self.folder)

    def court(self, config: SandboxConfig, source: Source) -> SandboxConfig:
        """The sandbox that an attempt is graded in."""
        return self._sandbox(config, source, self.graded)

    def _sandbox(self, config: SandboxConfig, source: Source, base: Path) -> SandboxConfig:
        runtime = self.runtime
        if source.kind == "image":
            config = config.model_copy(update={"image": source.name, "workspace": source.folder})
        return config.model_copy(
            update={
                "base": base,
                "read_only": (*config.read_only, *runtime.read_only),
                "environment": {**self._environment(config.workspace), **config.environment},
            }
        )

    def _environment(self, workspace: str) -> dict[str, str]:
        runtime = self.runtime
        # Where the workspace's path is not known beforehand (`process`), the relative ones serve.
        paths = [f"{workspace}/{path}" for path in runtime.python_path] + list(runtime.python_path)
        return {
            "PATH": f"{Path(runtime.python).parent}:{_PATH}",
            "PYTHONPATH": ":".join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
            "PAGER": "cat",
            "GIT_PAGER": "cat",
        }


class Repositories:
    """Prepares repositories, each once for all who share the folder `root`."""

    def __init__(self, root: Path, sandbox: SandboxConfig, timeout_s: float) -> None:
        self._cache = Cache(root, timeout_s)
        self._sandbox = sandbox
        self._timeout_s = timeout_s

    async def prepare(self, problem: Problem) -> Repository:
        """The repository of a task. Raises `UserError` for what cannot be had, `EnvironmentFailure` at a deadline."""
        source = problem.source
        if source.kind == "image":
            await self._read_image(source)
        return await in_thread(partial(self.prepared, problem))

    def prepared(self, problem: Problem) -> Repository:
        """The same, blocking, for what comes from no image."""
        source, patches = problem.source, [problem.bug_patch]
        folder = self._layer(source, patches)
        graded = self._layer(source, [*patches, problem.test_patch]) if problem.test_patch.strip() else folder
        manifest = json.loads((folder.parent / "manifest.json").read_text("utf-8"))
        return Repository(folder, graded, manifest, self.runtime(source))

    def tree(self, source: Source) -> Path:
        """The files of a source."""
        key = tree_key(source)
        made = self._cache.moved("trees", key, lambda part: self._fetch(source, part))
        return made / "tree"

    def runtime(self, source: Source) -> Runtime:
        """What it runs with; installed when it is not yet."""
        if source.kind == "image":
            python = (self.tree(source).parent / "python").read_text("utf-8")
            return Runtime(python, python_path=source.python_path or (".",))
        python = find_python(self._sandbox)
        if python is None:
            raise UserError("Repositories need a Python that every user can run: install python3, or set its path.")
        tree = self.tree(source)
        paths = source.python_path or python_paths(tree)
        if source.kind == "sample":
            return Runtime(python, python_path=paths)
        key = key_of(source.kind, source.name, source.version or source.commit, python, *source.requires)
        pip = (sys.executable, "-m", "pip")
        make = partial(
            make_environment,
            tree=tree,
            requires=source.requires,
            python=python,
            pip=pip,
            timeout_s=self._timeout_s,
        )
        folder = self._cache.in_place("environments", key, make)
        self._check_readable(folder)
        return Runtime(str(folder / "bin" / "python"), (str(folder),), paths)

    def _layer(self, source: Source, patches: list[str]) -> Path:
        tree = self.tree(source)
        made = self._cache.moved(
            "layers", key_of(tree_key(source), *patches), lambda part: _make_layer(tree, patches, part)
        )
        return made / "tree"

    def _fetch(self, source: Source, part: Path) -> None:
        (part / "tree").mkdir()
        fetch(source, part / "tree", self._cache, self._timeout_s)

    def _check_readable(self, folder: Path) -> None:
        """Sandboxes of root's run as other users."""
        closed = [path for path in (folder, *folder.parents) if not path.stat().st_mode & 0o001]
        if os.getuid() == 0 and closed and self._sandbox.kind in ("auto", "bubblewrap"):
            raise UserError(
                f"Sandboxes cannot look into {closed[0]}: set `cache` to a folder that every user can enter."
            )

    async def _read_image(self, source: Source) -> None:
        if (self._cache.root / "trees" / tree_key(source)).exists():
            return
        candidates = [path.format(folder=source.folder) for path in _IMAGE_PYTHONS]
        find = f"for p in {' '.join(candidates)}; do [ -x $p ] && echo -n $p && break; done"
        async with await open_sandbox(self._sandbox.model_copy(update={"image": source.name})) as sandbox:
            python = await sandbox.exec(find, timeout_s=self._timeout_s)
            packed = await sandbox.exec(
                ["tar", "-C", source.folder, "--exclude=./.git", "-cf", "-", "."],
                timeout_s=self._timeout_s,
                max_output_bytes=_LONGEST_TREE,
            )
        if packed.exit_code != 0 or packed.truncated:
            said = packed.stderr.decode("utf-8", "replace")[-300:]
            raise EnvironmentFailure(f"The repository in image {source.name} cannot be read: {said}", kind="image")
        make = partial(_unpack, packed.stdout, python.stdout.decode())
        await in_thread(partial(self._cache.moved, "trees", tree_key(source), make))


def _unpack(packed: bytes, python: str, part: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(part / "tree", filter="tar")
    (part / "python").write_text(python or "python3", "utf-8")


def _make_layer(tree: Path, patches: list[str], part: Path) -> None:
    """Files that no patch touches are shared with the tree, by hard links."""
    folder = part / "tree"
    try:
        shutil.copytree(tree, folder, symlinks=True, copy_function=os.link)
    except OSError:  # another file system
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tree, folder, symlinks=True)
    for patch in patches:
        apply(patch, folder)
    commit_all(folder)
    manifest = {
        path: [status.st_size, status.st_mtime_ns, collect.digest_of(str(folder / path))]
        for path, status in collect.files(str(folder))
    }
    (part / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def solution_of(problem: Problem, repository: Repository) -> Changes:
    """The changes that the task's own patch makes. Blocks. Raises `UserError` where it does not fit."""
    paths = touched(problem.patch)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in paths:
            if (repository.graded / path).is_file():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository.graded / path, folder / path)
        apply(problem.patch, folder)
        there = [path for path in paths if (folder / path).is_file()]
        return Changes({path: (folder / path).read_bytes() for path in there}, tuple(sorted({*paths} - {*there})))


def patch_of(changes: Changes, repository: Repository) -> str:
    """The changes as a diff against the repository as it was given; files that are no text are left out."""
    diffs: list[str] = []
    for path in sorted(changes.paths):
        file = repository.folder / path
        try:
            old = file.read_bytes().decode() if file.is_file() else None
            new = changes.write[path].decode() if path in changes.write else None
        except UnicodeDecodeError:
            continue
        diffs.append(unified_diff(path, old, new))
    return "".join(diffs)


def root_for(rows: str) -> Path:
    """Where the repositories of rows are prepared, if nobody says where: beside those of the factory's own folders."""
    for folder in (Path(rows), Path(rows).parent) if rows else ():
        if (folder / PREPARED).is_dir():
            return (folder / PREPARED).absolute()
    return user_root("swe")
