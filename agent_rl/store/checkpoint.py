"""Atomic checkpoints. Knows files and digests; what is in the state is the trainer's affair.

    RUN/checkpoints/step-00000010/manifest.json   step, next group, weight version, seed; size and SHA-256 of each file
                                  state.pt        the state, as `torch.save` writes it
                                  learner/        by convention, the learner's state, from each rank its part
                                  model/          by convention, the policy as the trainer exported it

A checkpoint is written to a temporary sibling, fsynced file by file, and renamed: under its own name it is complete.
What kill -9 leaves behind is a `tmp-*` folder, removed by the next save or resume. A checkpoint whose bytes no longer
match its manifest (a bad disk) is set aside as `corrupt-*`, with a warning, and the one before it is taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_rl.store.state import write_file

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
STATE = "state.pt"
MODEL = "model"
LEARNER = "learner"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stood after training step `step`: the groups before `next_group_index` have been consumed."""

    path: Path
    step: int
    next_group_index: int
    weight_version: int
    seed: int


class _DamagedError(Exception):
    """The folder is not what its manifest says."""


def save_checkpoint(
    run_dir: Path,
    state: Mapping[str, Any],
    *,
    step: int,
    next_group_index: int,
    weight_version: int,
    seed: int,
    export: Callable[[Path], object] | None = None,
    keep: int = 2,
) -> Checkpoint:
    """Durable on return; replaces an earlier checkpoint of the same step, then deletes all but the newest `keep`.

    `state` holds tensors and plain containers: `TypeError` when it could not be loaded without running pickled code.
    `export` writes more files into the folder it is given. Blocks; when it raises, earlier checkpoints are untouched.
    """
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    checkpoint = Checkpoint(folder / f"step-{step:08d}", step, next_group_index, weight_version, seed)
    temporary = folder / f"tmp-{checkpoint.path.name}"
    temporary.mkdir()
    write_file(temporary / STATE, state)
    if export is not None:
        export(temporary)
    _write_manifest(temporary, checkpoint)
    _fsync_tree(temporary)
    if checkpoint.path.exists():
        _remove(checkpoint.path)
    temporary.rename(checkpoint.path)
    _fsync(folder)
    for old in list_checkpoints(run_dir)[:-keep]:
        _remove(old.path)
    return checkpoint


def load_latest(run_dir: Path) -> tuple[Checkpoint, dict[str, Any]] | None:
    """The newest sound checkpoint and its state, tensors on the CPU; `None` when there is none.

    For the process that owns the run: it removes leftovers and sets corrupt checkpoints aside.
    """
    import torch

    _remove_leftovers(run_dir / FOLDER)
    for path in reversed(_folders(run_dir)):
        try:
            checkpoint = _verified(path)
        except _DamagedError as damage:
            aside = path.with_name(f"corrupt-{path.name}")
            _log.warning("%s is corrupt (%s): set aside as %s, taking the one before", path, damage, aside.name)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        else:
            return checkpoint, torch.load(path / STATE, map_location="cpu", weights_only=True)
    return None


def list_checkpoints(run_dir: Path) -> list[Checkpoint]:
    """Complete checkpoints by ascending step. Only reads, so that any process may look at a run in progress."""
    found: list[Checkpoint] = []
    for path in _folders(run_dir):
        with suppress(_DamagedError):
            found.append(_described(path, _read_manifest(path)))
    return found


# --- writing ---


def _write_manifest(folder: Path, checkpoint: Checkpoint) -> None:
    files = {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    fields = dataclasses.asdict(checkpoint) | {"files": files}
    del fields["path"]
    (folder / MANIFEST).write_text(json.dumps(fields, indent=1))


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _fsync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _fsync(path)
    _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading ---


def _folders(run_dir: Path) -> list[Path]:
    return sorted((run_dir / FOLDER).glob("step-*"))


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, ValueError) as error:
        raise _DamagedError(f"no readable manifest: {error}") from error


def _described(folder: Path, manifest: dict[str, Any]) -> Checkpoint:
    try:
        return Checkpoint(folder, *(manifest[f.name] for f in dataclasses.fields(Checkpoint) if f.name != "path"))
    except KeyError as error:
        raise _DamagedError(f"the manifest lacks {error}") from error


def _verified(folder: Path) -> Checkpoint:
    manifest = _read_manifest(folder)
    checkpoint = _described(folder, manifest)
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file() or _digest(folder / name) != expected:
            raise _DamagedError(f"{name} is missing or differs from the manifest")
    return checkpoint


# --- removing ---


def _remove(folder: Path) -> None:
    """Rename first: a process killed while it deletes leaves no half checkpoint under a valid name."""
    doomed = folder.with_name(f"tmp-old-{folder.name}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob("tmp-*"):
        shutil.rmtree(path)
