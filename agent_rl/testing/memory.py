"""Exact bytes of live tensor storage, whoever holds them: a measure that is the same on every machine."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode  # pyright: ignore[reportPrivateUsage]  # the only way
from torch.utils._pytree import tree_iter  # pyright: ignore[reportPrivateUsage]  # the only way


class LiveStorage(TorchDispatchMode):
    """Inside, counts the bytes of storage that operations made and that something still holds, autograd included.

    What lived before, such as a model's weights, does not count. `live` is the present number and `peak` the largest.
    What an operation needs only while it runs is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, and count what it made."""
        before = {id(tensor.untyped_storage()) for tensor in tree_iter((args, kwargs)) if _is_tensor(tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if _is_tensor(tensor):
                self._count(tensor.untyped_storage(), before)
        return result

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key = id(storage)
        if key in before or key in self._known:
            return
        size = storage.nbytes()

        def forget(_: object) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)
