"""Started by test_train_faults.py in a mount namespace of its own: python full_disk.py FOLDER KILOBYTES

Trains on a file system on which so much is left, then frees space and goes on; prints what it was told, and whether the
end is that of a run with room enough.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import torch
from train_parity import parity_config, train_parity

from agent_rl.errors import UserError
from agent_rl.store.opening import open_journal

MEGABYTES = 32


def run(run_dir: Path) -> tuple[Any, list[torch.Tensor]]:
    config = parity_config(steps=3, group_size=2, checkpoint_every=1)
    _, model = anyio.run(lambda: train_parity(run_dir, config, resume=True))
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
        found, rest = group.split(UserError)
        assert found is not None
        assert rest is None, rest
        return str(found.exceptions[0])
    return "there was room"


def main(folder: Path, kilobytes: int) -> None:
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(small)], check=True)
    ballast = small / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(MEGABYTES * 2**20 - kilobytes * 1024))
    error = complaint_of(small / "run")
    ballast.unlink()
    (happened, weights), (expected, expected_weights) = run(small / "run"), run(small / "whole")
    same = happened == expected and all(map(torch.equal, weights, expected_weights))
    print(json.dumps({"error": error, "same": same}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
