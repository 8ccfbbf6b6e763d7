"""What is in the calendar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_rl_envs.browser.sites.calendar.records import Event, Guest, Invitation, Skip
from agent_rl_envs.browser.sites.draws import Person, chance, clock, later, one, order

KINDS = ("Planning", "Review", "Coffee", "Interview", "Workshop", "Call", "Training", "Lunch")
PLACES = ("Room 1", "Room 2", "Cafe Nord", "Town hall", "")
WEEKLY = ("Choir", "Yoga", "Team meeting", "French lesson")


@dataclass(frozen=True, slots=True)
class CalendarRecords:
    """All of it. The titles of events and of invitations are unique."""

    events: list[Event]
    skips: list[Skip]
    guests: list[Guest]
    invitations: list[Invitation]


def make_calendar(rng: np.random.Generator, people: Sequence[Person], now: str) -> CalendarRecords:
    """Eighteen events of the next four weeks, two that repeat, three invitations."""
    titles = [f"{kind} with {who.name}" for kind in KINDS for who in people]
    shuffled = [titles[i] for i in order(rng, len(titles))]
    moments = order(rng, 28 * 9)[:18]  # hours of the days, none twice
    events = [
        Event(
            id=id,
            title=shuffled.pop(),
            day=later(now, 1 + moment // 9),
            start=clock(60 * (8 + moment % 9)),
            end=clock(60 * (8 + moment % 9) + one(rng, (30, 60))),
            place=one(rng, PLACES),
            until="",
        )
        for id, moment in enumerate(moments, 1)
    ]
    for at in order(rng, len(WEEKLY))[:2]:
        day, start = later(now, int(rng.integers(1, 8))), 60 * int(rng.integers(18, 21))
        events.append(
            Event(
                id=len(events) + 1,
                title=WEEKLY[at],
                day=day,
                start=clock(start),
                end=clock(start + 60),
                place=one(rng, PLACES),
                until=later(day, 7 * int(rng.integers(4, 9))),
            )
        )
    guests = [
        Guest(id=event.id, event_id=event.id, email=one(rng, people).email) for event in events[:18] if chance(rng, 0.6)
    ]
    invitations = [
        Invitation(
            id=id,
            host=people[at].email,
            title=shuffled.pop(),
            day=later(now, int(rng.integers(2, 28))),
            start=clock(60 * int(rng.integers(18, 21))),
            end="21:30",
            place=one(rng, PLACES[:-1]),
            status="open",
            note="",
        )
        for id, at in enumerate(order(rng, len(people))[:3], 1)
    ]
    return CalendarRecords(events, [], guests, invitations)
