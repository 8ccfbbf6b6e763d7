"""Which session holds which row of the cache, and the token ids behind each row. Pure bookkeeping, without torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent_rl.engine.local.job import Job
from agent_rl.types import IntArray

_NOTHING = -1


@dataclass(slots=True, eq=False)
class Session:
    """A resident session. `length` tokens are in the cache, the oldest of them computed with weights `version`.

    It is busy while it has a `job`, else idle: kept for its next turn, or evicted when the row is needed.
    """

    name: str
    row: int
    version: int
    length: int = 0
    job: Job | None = None

    @property
    def work(self) -> Job:
        """The job of a busy session."""
        assert self.job is not None
        return self.job

    @property
    def remaining(self) -> int:
        """Tokens of the prompt that are not in the cache yet."""
        left = len(self.work.request.prompt_ids_T) - self.length
        return left if left > 0 else 0


class Match(NamedTuple):
    """The resident session whose start is most like a prompt: `computed` tokens now, `planned` once it is prefilled."""

    session: Session
    computed: int
    planned: int


class SlotTable:
    """Rows, their sessions and their token ids.

    `ids_RC[row]` holds the ids that are, or are about to be, in the cache; -1 behind them.
    """

    def __init__(self, rows: int, capacity: int) -> None:
        self.sessions: dict[str, Session] = {}
        self.evictions = 0
        self._occupants: list[Session | None] = [None] * rows
        self._idle: OrderedDict[str, Session] = OrderedDict()
        self._ids_RC = np.full((rows, capacity), _NOTHING, dtype=np.int32)

    def clear(self) -> None:
        """Forget all sessions, busy or not."""
        self.sessions.clear()
        self._idle.clear()
        self._occupants = [None] * len(self._occupants)
        self._ids_RC[:] = _NOTHING

    @property
    def has_room(self) -> bool:
        """Whether `open` can succeed: a row is free, or held by an idle session."""
        return len(self.sessions) < len(self._occupants) or bool(self._idle)

    def open(self, name: str, version: int) -> Session:
        """A row for a new session: a free one, else that of the idle session used longest ago."""
        if len(self.sessions) == len(self._occupants):
            self.close(next(iter(self._idle.values())))
            self.evictions += 1
        row = self._occupants.index(None)
        session = Session(name, row, version)
        self._occupants[row] = session
        self.sessions[name] = session
        return session

    def close(self, session: Session) -> None:
        """Forget the session; its row is free."""
        self._idle.pop(session.name, None)
        del self.sessions[session.name]
        self._occupants[session.row] = None
        self._ids_RC[session.row] = _NOTHING

    def start(self, session: Session, job: Job, version: int) -> None:
        """The session works on `job`: keep what its row has in common with the prompt, plan the rest.

        The last token of the prompt is never kept: its logits are needed.
        """
        prompt_T = job.request.prompt_ids_T
        row_T = self._ids_RC[session.row]
        session.length = _common_prefix(row_T[: session.length], prompt_T[:-1])
        if session.length == 0:
            session.version = version
        row_T[: len(prompt_T)] = prompt_T
        row_T[len(prompt_T) :] = _NOTHING
        session.job = job
        self._idle.pop(session.name, None)

    def rest(self, session: Session) -> None:
        """The session has no job for now: it is the last in the order of eviction."""
        session.job = None
        self._ids_RC[session.row, session.length :] = _NOTHING
        self._idle[session.name] = session

    def adopt(self, session: Session, prefix_T: IntArray) -> None:
        """The keys and values of `prefix_T` were copied to the row of `session`."""
        self._ids_RC[session.row, : len(prefix_T)] = prefix_T
        session.length = len(prefix_T)

    def match(self, prompt_T: IntArray, version: int) -> Match | None:
        """The best source to copy from, among sessions computed with weights `version` alone; `None` if all differ."""
        wanted_T = prompt_T[:-1]
        if not len(wanted_T):
            return None
        differs_RT = self._ids_RC[:, : len(wanted_T)] != wanted_T
        common_R = np.where(differs_RT.any(axis=1), differs_RT.argmax(axis=1), len(wanted_T))
        # -1 for rows that must not be copied: free ones, and those computed with other weights.
        lengths_R = np.array([s.length if s and s.version == version else -1 for s in self._occupants])
        computed_R = np.minimum(common_R, lengths_R)
        best = int(computed_R.argmax())
        session = self._occupants[best]
        if session is None or computed_R[best] < 0:
            return None
        return Match(session, int(computed_R[best]), int(common_R[lengths_R >= 0].max()))

    def record(self, sessions: Sequence[Session], ids_N: NDArray[np.int64], positions_N: NDArray[np.int64]) -> None:
        """Sampled ids enter the cache: one per session, at its position."""
        rows = [session.row for session in sessions]
        self._ids_RC[rows, positions_N] = ids_N

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` tokens in each row."""
        more = capacity - self._ids_RC.shape[1]
        self._ids_RC = np.pad(self._ids_RC, ((0, 0), (0, more)), constant_values=_NOTHING)

    def arrange(self, *groups: Sequence[Session]) -> tuple[list[int], list[int]]:
        """Give each group neighbouring rows, the first group from row 0 on, and move as few rows as possible.

        Returns the rows to move, all at once: (sources, targets). Rows without content are not among them.
        """
        origins: dict[Session, int] = {}
        start = 0
        for group in groups:
            end = start + len(group)
            outside = [session for session in group if not start <= session.row < end]
            if outside:
                members = set(group)
                holes = [row for row in range(start, end) if self._occupants[row] not in members]
                for session, hole in zip(outside, holes, strict=True):
                    self._swap(session.row, hole, origins)
            start = end
        moved = [(old, session.row) for session, old in origins.items() if session.row != old]
        sources, targets = [source for source, _ in moved], [target for _, target in moved]
        self._ids_RC[targets] = self._ids_RC[sources]
        for row in set(sources) - set(targets):
            self._ids_RC[row] = _NOTHING
        return sources, targets

    def _swap(self, row: int, other: int, origins: dict[Session, int]) -> None:
        occupants = self._occupants
        occupants[row], occupants[other] = occupants[other], occupants[row]
        for target in (row, other):
            session = occupants[target]
            if session is not None:
                origins.setdefault(session, session.row)
                session.row = target


def _common_prefix(a_T: IntArray, b_T: IntArray) -> int:
    """Length of the longest common prefix."""
    shorter = min(len(a_T), len(b_T))
    differs = a_T[:shorter] != b_T[:shorter]
    return int(differs.argmax()) if differs.any() else shorter
