"""Admission of groups so that none is too old when it is trained on. Knows counts only: no groups, no weights."""

from __future__ import annotations

import anyio


class StalenessGate:
    """At most `(max_staleness + 1) * groups_per_batch` groups are started and not yet released.

    Contract: groups start and are consumed in logical order; every training step consumes `groups_per_batch` groups
    and releases them once its new weights are in the engine; a group that the consumer drops untrained is released at
    once. Then each trained group was started at most `max_staleness` steps before the step that trains it, and none
    is ever thrown away for age (which would favour short episodes).

    Proof: let group `i` start at weight version `v` and be trained in step `k`. Steps `v .. k-1` train groups before
    `i` (logical order), all started by then and none released: `(k - v) * groups_per_batch` slots, one more for `i`.
    Since all of them fit into the gate, `k - v < max_staleness + 1`. With `max_staleness` 0 every group is sampled
    with the weights it trains: the synchronous trainer is this gate and no other code.
    """

    def __init__(self, max_staleness: int, groups_per_batch: int) -> None:
        self.capacity = (max_staleness + 1) * groups_per_batch
        self._slots = anyio.Semaphore(self.capacity, max_value=self.capacity)

    @property
    def in_flight(self) -> int:
        """Groups started and not yet released."""
        return self.capacity - self._slots.value

    async def acquire(self) -> None:
        """Wait until one more group may start."""
        await self._slots.acquire()

    def release(self, count: int = 1) -> None:
        """Give back the slots of `count` groups that were trained on or dropped. Raises `ValueError` if too many."""
        if count > self.in_flight:
            raise ValueError(f"released {count} groups while only {self.in_flight} are in flight")
        for _ in range(count):
            self._slots.release()
