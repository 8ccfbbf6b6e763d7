"""A full disk is the user's to free: one sentence, whoever ran into it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_rl.errors import UserError

_NEARLY_NONE = 64 * 1024
"""Bytes: torch and safetensors say only that a write failed, in errors of their own."""


@contextmanager
def told_when_full(folder: Path) -> Generator[None]:
    """Raise `UserError` when the block fails since the disk of `folder` is full."""
    try:
        yield
    except Exception as error:
        leaves = list(_leaves(error))
        if all(isinstance(leaf, UserError) for leaf in leaves):
            raise
        if any(_says_full(leaf) for leaf in leaves) or shutil.disk_usage(folder).free < _NEARLY_NONE:
            raise UserError(f"The disk of {str(folder)!r} is full: free space, then go on with --resume.") from error
        raise


def _says_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
