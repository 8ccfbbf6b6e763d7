"""A learner's state as files: one file from one process, or one part from each rank (torch's distributed checkpoint).

Either can be read by any number of ranks. Whether a checkpoint exists whole is `checkpoint.py`'s affair.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_rl.errors import ConfigError

FILE = "state.pt"
_METADATA = ".metadata"  # what torch's distributed checkpoint calls its index


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (nested mappings of tensors and plain values) into `folder`, together with ranks that share it."""
    folder.mkdir(parents=True, exist_ok=True)
    if _in_parts(state):
        from torch.distributed.checkpoint.state_dict_saver import save

        save(dict(state), checkpoint_id=folder)
    else:
        write_file(folder / FILE, state)


def read_state(folder: Path, like: dict[str, Any]) -> Mapping[str, Any]:
    """What `write_state` wrote. `like` is a state of the same shape, whose tensors may be overwritten with it.

    Raises `ConfigError` when it has another shape, `FileNotFoundError` when nothing was written there.
    """
    import torch

    if not (folder / _METADATA).is_file():
        return torch.load(folder / FILE, map_location="cpu", mmap=True, weights_only=True)
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    alone = not _in_parts(like)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # says that it is alone, as asked
            load(like, checkpoint_id=folder, no_dist=alone)
    except CheckpointException as error:
        raise ConfigError(
            f"The checkpoint in {str(folder)!r} belongs to another model or LoRA configuration."
        ) from error
    return like


def write_file(path: Path, state: Mapping[str, Any]) -> None:
    """As `torch.save` does. Raises `TypeError` when it could not be loaded without running pickled code."""
    import torch

    torch.save(dict(state), path)
    try:
        torch.load(path, mmap=True, weights_only=True)  # reads the structure only, not the tensors
    except pickle.UnpicklingError as error:
        raise TypeError("the state of a checkpoint holds something that is not a tensor or plain container") from error


def _in_parts(state: Mapping[str, Any]) -> bool:
    from torch.distributed.tensor import DTensor

    return any(
        _in_parts(value) if isinstance(value, Mapping) else isinstance(value, DTensor) for value in state.values()
    )
