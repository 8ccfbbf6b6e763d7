"""Which of several replicas an episode, or a group of them, is at. Pure bookkeeping: knows no connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent_rl.errors import ProviderFailure


@dataclass(eq=False, slots=True)
class Replica:
    """One of several that can do the same, such as servers of one model, with the sessions that stay at it."""

    name: str
    lost: bool = False
    sessions: set[str] = field(default_factory=set[str])


class Replicas:
    """Sticky routing: a session stays at the replica of its first request, the one with the fewest sessions then."""

    def __init__(self, names: Sequence[str]) -> None:
        self.all = [Replica(name) for name in dict.fromkeys(names)]
        self._home: dict[str, Replica] = {}

    def of(self, session: str) -> Replica:
        """The session's replica. Raises `ProviderFailure` when all are lost."""
        home = self._home.get(session)
        if home is None:
            found = [replica for replica in self.all if not replica.lost]
            if not found:
                raise ProviderFailure("No replica can be reached.", kind="connection", stage="generation")
            home = self._home[session] = min(found, key=lambda replica: len(replica.sessions))
            home.sessions.add(session)
        return home

    def named(self, name: str) -> Replica:
        """The replica of that name."""
        return next(replica for replica in self.all if replica.name == name)

    def add(self, name: str) -> None:
        """One more, which is lost until it is found."""
        self.all.append(Replica(name, lost=True))

    def remove(self, name: str) -> None:
        """Forget a replica, and where its sessions were."""
        replica = self.named(name)
        self.lose(replica)
        self.all.remove(replica)

    def home(self, session: str) -> Replica | None:
        """The replica that the session is at; none for unknown sessions."""
        return self._home.get(session)

    def forget(self, session: str) -> None:
        """Unknown sessions are fine."""
        if home := self._home.pop(session, None):
            home.sessions.discard(session)

    def lose(self, replica: Replica) -> None:
        """Route nothing there; its sessions move with their next request."""
        replica.lost = True
        for session in list(replica.sessions):
            self.forget(session)

    def find(self, replica: Replica) -> None:
        """Route there again."""
        replica.lost = False
