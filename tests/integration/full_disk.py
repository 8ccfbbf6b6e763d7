"""Started by test_train_faults.py in a mount namespace of its own: python full_disk.py FOLDER KILOBYTES...

For each size: trains on a file system on which so much is left, then frees space and goes on; prints what it was told,
and whether the end is that of a run with room enough.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import torch
from kill_anywhere import TRAINING
from train_parity import train_parity

from agent_rl.errors import UserError
from agent_rl.store.opening import open_journal

MEGABYTES = 32


def run(run_dir: Path) -> tuple[Any, list[torch.Tensor]]:
    _, model = anyio.run(lambda: train_parity(run_dir, TRAINING, resume=True))
    with open_journal(run_dir) as journal:
        turns = {
            index: [[turn.action.content for turn in episode.turns] for episode in group.trajectories]
            for index, group in journal.load_groups().items()
        }
        return (journal.consumed(), turns), list(model.parameters())


def complaint_of(run_dir: Path) -> str:
    """The sentence, which may come in groups of exceptions."""
    try:
        run(run_dir)
    except UserError as error:
        return str(error)
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            (leaf,) = leaf.exceptions
        assert isinstance(leaf, UserError), leaf
        return str(leaf)
    return "there was room"


def main(folder: Path, sizes: list[int]) -> None:
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(small)], check=True)
    expected, expected_weights = run(folder / "whole")
    for kilobytes in sizes:
        ballast, run_dir = small / "ballast", small / f"run-{kilobytes}"
        ballast.write_bytes(bytes(shutil.disk_usage(small).free - kilobytes * 1024))
        error = complaint_of(run_dir)
        ballast.unlink()
        happened, weights = run(run_dir)
        same = happened == expected and all(map(torch.equal, weights, expected_weights))
        print(json.dumps({"error": error, "same": same}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])
