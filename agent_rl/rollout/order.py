"""Which finished group is consumed next: the earliest, or a later one that overtakes what still runs.

Strict order makes every batch wait for its slowest group. Free order starves long episodes, or throws them away once
they are too old, so that the policy learns from short ones. Here a finished group may overtake a few that still run,
as long as each of those can still be trained on in time: all are consumed, none late. Knows counts only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Started:
    step: int  # training steps done when it was started
    finished: bool = False


class ConsumptionOrder:
    """The groups in flight, in logical order. A batch has `groups_per_batch` slots.

    With `overtake` 0 groups are consumed in logical order, the same for any timing. Otherwise a group may be consumed
    while up to `overtake` earlier ones run. `StalenessGate` bounds what is in flight; its contract (a group started at
    step `s` is trained by step `s + max_staleness`) survives overtaking for this reason: consumption happens only if
    afterwards, for every deadline `d`, the groups due by `d` fit into the slots up to step `d`, those that are left in
    this batch included. Groups are due in the order in which they start, so that later ones never add to that count,
    and the earliest group may always be consumed: waiting for it ends.
    """

    def __init__(self, groups_per_batch: int = 1, max_staleness: int = 0, overtake: int = 0) -> None:
        self._groups_per_batch = groups_per_batch
        self._max_staleness = max_staleness
        self._overtake = overtake
        self._in_flight: dict[int, _Started] = {}
        self._step = 0
        self._held = 0

    def start(self, index: int) -> None:
        """Group `index` is started; indices rise."""
        self._in_flight[index] = _Started(self._step)

    def finish(self, index: int) -> None:
        """Group `index` may be consumed."""
        self._in_flight[index].finished = True

    def first_unconsumed(self, next_index: int) -> int:
        """The lowest index that was not consumed; `next_index` is the next to be started."""
        return next(iter(self._in_flight), next_index)

    def take(self) -> int | None:
        """The next group to consume, which then occupies a slot of the batch; `None`: wait for another to finish."""
        for overtaken, (index, group) in enumerate(self._in_flight.items()):
            if overtaken > self._overtake:
                return None
            if group.finished:
                if not self._in_time_without(group):
                    return None
                del self._in_flight[index]
                self._held += 1
                return index
        return None

    def drop(self) -> None:
        """A group that was taken is not trained on: its slot is free for another."""
        self._held -= 1

    def finish_batch(self) -> None:
        """The batch's weights are in the engine: what starts from here on is one step younger."""
        self._step += 1
        self._held = 0

    def _in_time_without(self, taken: _Started) -> bool:
        """Whether all that are due before `taken` still find a slot in time when it takes one now."""
        left = self._groups_per_batch - self._held - 1
        due: dict[int, int] = {}
        for group in self._in_flight.values():
            if group.step >= taken.step:
                break
            due[group.step] = due.get(group.step, 0) + 1
        waiting = 0
        for step, count in due.items():
            waiting += count
            later_batches = step + self._max_staleness - self._step
            if waiting > left + later_batches * self._groups_per_batch:
                return False
        return True
