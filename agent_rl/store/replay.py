"""Experience replay: draws from the latest groups of the journal. Nothing is stored twice, little is held in memory.

A draw is a function of (seed, step, number of the draw) and of what was consumed before the step, which `rewind`
restores: a resumed run draws the same. All turns of a drawn group are used, so each turn of the window is as likely as
any other, and one forward pass reads all turns of an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from agent_rl.seeding import stream
from agent_rl.store.journal import Journal
from agent_rl.types import Group


class Replay:
    """Draws from the last `capacity` groups: those of the present step, and what was consumed before.

    `transform` is what a group goes through between journal and learning. `journal` is the replay's own: another
    thread may be writing to the same file.
    """

    def __init__(
        self, journal: Journal, capacity: int, seed: int, transform: Callable[[Group], Group] = lambda group: group
    ) -> None:
        self._journal = journal
        self._capacity = capacity
        self._seed = seed
        self._transform = transform

    def draws(self, present: Sequence[Group], step: int, count: int, size: int) -> Iterator[list[Group]]:
        """`count` draws for training step `step`, each of up to `size` different groups.

        `present` are the groups of the step itself, already transformed; where they alone are more than the capacity,
        all of them are in the window.
        """
        past = self._journal.latest_consumed(max(0, self._capacity - len(present)))
        window = len(past) + len(present)
        for draw in range(count):
            picks = stream(self._seed, "replay", step, draw).choice(window, min(size, window), replace=False).tolist()
            loaded = self._journal.read_groups([past[pick] for pick in picks if pick < len(past)])
            yield [
                self._transform(loaded[past[pick]]) if pick < len(past) else present[pick - len(past)] for pick in picks
            ]
