"""The receiver's side: a folder with a safetensors file for an engine to load, patched in place. Needs no torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from agent_rl.engine.delta.chain import Delta, name_after
from agent_rl.engine.delta.coding import Bits, apply

FILE = "model.safetensors"


class OtherWeights(Exception):
    """What is there is not what a delta starts from: only the full weights help."""


class WeightsFolder:
    """Holds the weights called `name`; none at first, and none after anything went wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name: str | None = None

    def replace(self, file: Path, name: str) -> None:
        """Take `file`, a safetensors file in the same file system, as the weights called `name`."""
        self.name = None
        file.replace(self.folder / FILE)
        self.name = name

    def patch(self, delta: Delta) -> None:
        """Blocking. Raises `OtherWeights` when the delta starts from others, was damaged, or does not fit."""
        if self.name is None or name_after(self.name, delta.data) != delta.name:
            raise OtherWeights(f"the delta does not start from {self.name}, or was damaged")
        self.name = None
        try:
            tensors = _open(self.folder / FILE)
            for name, code in load(delta.data).items():
                apply(code.data, tensors[name])
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise OtherWeights(f"the delta does not fit: {error!r}") from error
        self.name = delta.name

    def remove(self) -> None:
        """Idempotent."""
        self.name = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _open(file: Path) -> dict[str, Bits]:
    """Writable views of all tensors in a safetensors file: its header is JSON after eight bytes with its length."""
    data = np.memmap(file, np.uint8, mode="r+")
    start = 8 + int(data[:8].view(np.uint64)[0])
    header = json.loads(bytes(data[8:start]))
    header.pop("__metadata__", None)
    views: dict[str, Bits] = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        size = int(np.prod(entry["shape"], dtype=np.int64))
        itemsize = (last - first) // size if size else 1
        views[name] = data[start + first : start + last].view(f"u{itemsize}")
    return views
