"""Which events take place when, and when there is time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from agent_rl_envs.browser.sites.calendar.records import Event, Skip
from agent_rl_envs.browser.sites.draws import clock, later

OPENS, CLOSES, STEP = 8 * 60, 18 * 60, 30  # minutes since midnight


class Occurrence(NamedTuple):
    """An event on a day."""

    day: str
    event: Event


def occurrences(events: Iterable[Event], skips: Iterable[Skip], first: str, last: str) -> list[Occurrence]:
    """All from one day to another, in order."""
    skipped = {(skip.event_id, skip.day) for skip in skips}
    found = [
        Occurrence(day, event)
        for event in events
        for day in _days(event)
        if first <= day <= last and (event.id, day) not in skipped
    ]
    return sorted(found, key=lambda one: (one.day, one.event.start, one.event.id))


def free_starts(taken: Sequence[Event], minutes: int) -> list[str]:
    """When something of this length can begin on a day with these events, every half hour of the working day."""
    busy = [(_minutes(event.start), _minutes(event.end)) for event in taken]
    starts = range(OPENS, CLOSES - minutes + 1, STEP)
    return [clock(at) for at in starts if all(end <= at or at + minutes <= start for start, end in busy)]


def plus(time: str, minutes: int) -> str:
    """A time so many minutes later, on the same day."""
    return clock(_minutes(time) + minutes)


def _days(event: Event) -> Iterator[str]:
    day = event.day
    yield day
    while event.until and (day := later(day, 7)) <= event.until:
        yield day


def _minutes(time: str) -> int:
    hours, _, minutes = time.partition(":")
    return 60 * int(hours) + int(minutes)
