"""How weights reach vLLM's workers: as files, in shared memory where there is some. Imports no vLLM."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agent_rl.errors import ConfigError

if TYPE_CHECKING:
    import torch

_SHARED_MEMORY = Path("/dev/shm")


class Salts:
    """What keeps cached prefixes of different weights apart: vLLM shares a prefix among equal salts only.

    An episode keeps the salt of its first request, and with it its cache, however often the weights change. Unlike a
    version, a salt is never used twice: not by another run at the same server, not by an update that repeats a version.
    """

    def __init__(self) -> None:
        self._newest = uuid.uuid4().hex
        self._of: dict[str, str] = {}

    def of(self, session: str) -> str:
        """The session's salt; that of the present weights when the session is new."""
        return self._of.setdefault(session, self._newest)

    def forget(self, session: str) -> None:
        """Unknown sessions are fine."""
        self._of.pop(session, None)

    def renew(self) -> None:
        """The weights have changed."""
        self._newest = uuid.uuid4().hex


def newer(version: int, present: int) -> int:
    """`version`. Raises `ConfigError` when it is older than `present`."""
    if version < present:
        raise ConfigError(f"Weight version {version} is older than the engine's {present}.")
    return version


def transit_folder() -> Path:
    """Where weights pass through by default: shared memory, where there is some."""
    return _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())


class WeightFiles:
    """A folder through which weights reach vLLM's workers: in shared memory, unless `folder` says otherwise.

    Workers on other machines need a `folder` that they see under the same path.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or transit_folder()) / f"agent-rl-weights-{uuid.uuid4().hex[:12]}"

    def write(self, weights: Mapping[str, torch.Tensor]) -> Path:
        """Blocking. Replaces what was there: workers have read it when an update ends."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(_unshared(tensors), self.folder / "model.safetensors")
        return self.folder

    def remove(self) -> None:
        """Idempotent."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tied weights under each of their names, as safetensors wants them and vLLM needs them.

    A reload gives vLLM's `lm_head` a copy of its own; a file without that name would leave the former weights in it.
    """
    seen: set[int] = set()
    unshared: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        unshared[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return unshared
