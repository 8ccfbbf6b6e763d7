"""Where repositories come from: an sdist, a commit of a git repository, or the small one that ships with this package.

Knows how to get the files of a source into an empty folder. Blocks; needs git, and the network for what is not here.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from agent_rl.errors import UserError
from agent_rl_envs.cache import Cache, key_of
from agent_rl_envs.swe.commands import git, run
from agent_rl_envs.swe.problems import Source

SAMPLE = Path(__file__).parent / "sample"
_NOT_COPIED = (".git", "__pycache__", "*.pyc", ".venv", ".tox", ".pytest_cache")


def tree_key(source: Source) -> str:
    """Names the files of a source."""
    return key_of(source.kind, source.name, source.commit, source.folder)


def fetch(source: Source, folder: Path, cache: Cache, timeout_s: float) -> None:
    """Fill the folder with the source's files, without any history. Raises `UserError` where they cannot be had."""
    if source.kind == "sample":
        shutil.copytree(SAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    elif source.kind == "package":
        _fetch_sdist(source.name, folder, timeout_s)
    elif source.kind == "git":
        _fetch_commit(source, folder, cache)
    else:
        raise AssertionError("images are read by their sandboxes")


def _fetch_sdist(requirement: str, folder: Path, timeout_s: float) -> None:
    name = requirement.partition("==")[0]
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-input", "--disable-pip-version-check"]
        run([*command, "--no-deps", "--no-binary", name, "-d", temporary, requirement], timeout_s=timeout_s)
        archives = [path for path in Path(temporary).iterdir() if path.suffix in (".gz", ".zip", ".bz2", ".xz")]
        if not archives:
            raise UserError(f"The package index has no sdist of {requirement}: name another version or a git folder.")
        unpacked = Path(temporary) / "unpacked"
        if archives[0].suffix == ".zip":
            with zipfile.ZipFile(archives[0]) as packed:
                packed.extractall(unpacked)
        else:
            with tarfile.open(archives[0]) as packed:
                packed.extractall(unpacked, filter="data")
        [top] = unpacked.iterdir()
        shutil.copytree(top, folder, dirs_exist_ok=True, symlinks=True)


def _fetch_commit(source: Source, folder: Path, cache: Cache) -> None:
    """The files of a commit, without those of any other."""
    mirror = mirror_of(source, cache)
    index = folder.with_name(f"{folder.name}.index")
    git("--git-dir", str(mirror), "read-tree", source.commit or "HEAD", index=index)
    git("--git-dir", str(mirror), "--work-tree", str(folder), "checkout-index", "-a", "-f", cwd=folder, index=index)
    index.unlink()


def mirror_of(source: Source, cache: Cache) -> Path:
    """A bare copy of the git repository that has the commit; fetched again where it does not."""
    mirror = cache.moved("mirrors", key_of(source.name), lambda part: _clone(source.name, part))
    if source.commit and not _has(mirror, source.commit):
        git("--git-dir", str(mirror), "fetch", "-q", "origin", source.commit.rstrip("^~"))
        if not _has(mirror, source.commit):
            raise UserError(f"{source.name} has no commit {source.commit}.")
    return mirror


def _clone(name: str, folder: Path) -> None:
    git("clone", "-q", "--mirror", name, str(folder))


def _has(mirror: Path, commit: str) -> bool:
    try:
        git("--git-dir", str(mirror), "cat-file", "-e", f"{commit}^{{commit}}")
    except UserError:
        return False
    return True
