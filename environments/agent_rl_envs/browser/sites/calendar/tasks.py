"""Tasks in the calendar."""

from __future__ import annotations

import numpy as np

from agent_rl_envs.browser.sites.calendar.days import free_starts, occurrences, plus
from agent_rl_envs.browser.sites.calendar.records import Event, Guest, Skip
from agent_rl_envs.browser.sites.checks import added, changed, removed
from agent_rl_envs.browser.sites.draws import clock, later
from agent_rl_envs.browser.sites.oracle import Stage, link, press
from agent_rl_envs.browser.sites.problems import Problem, Unsuitable, pick, template
from agent_rl_envs.browser.sites.world import World

TITLES = ("Dentist", "Theatre", "Football match", "Car inspection", "Parents' evening", "Haircut")
NEW_PLACES = ("Room 7", "Library", "Market square", "Cafe West")


@template("calendar")
def day_of_event(world: World, rng: np.random.Generator) -> Problem:
    """Find one."""
    event = pick(rng, _single(world))
    text = f'On which day is "{event.title}" in my calendar? Answer with the day alone, as YYYY-MM-DD.'
    return Problem(text, find(event)[:2], answer=event.day)


@template("calendar")
def how_many_events(world: World, rng: np.random.Generator) -> Problem:
    """Of one day, with those that repeat."""
    day = pick(rng, _days(world))
    count = len(_on(world, day))
    if count < 2:
        raise Unsuitable
    text = f"How many events are in my calendar on {day}? Answer with the number alone."
    return Problem(text, [link("Week"), press("Show", {"From": day})], answer=str(count))


@template("calendar")
def first_free_time(world: World, rng: np.random.Generator) -> Problem:
    """On a page for that."""
    day, minutes = pick(rng, _days(world)), pick(rng, (60, 90, 120))
    starts = free_starts(_on(world, day), minutes)
    if not starts or starts[0] == clock(480):
        raise Unsuitable
    text = (
        f"When do I have time for {minutes} minutes on {day}, at the earliest, according to the page Free time of my "
        "calendar? Answer with the time alone, as HH:MM."
    )
    way = [link("Free time"), press("Show free time", {"On day": day, "Minutes": str(minutes)})]
    return Problem(text, way, answer=starts[0])


@template("calendar")
def create_event(world: World, rng: np.random.Generator) -> Problem:
    """A form."""
    event = _new(world, rng)
    text = (
        f'Put "{event.title}" into my calendar on {event.day} from {event.start} to {event.end}, at the place '
        f'"{event.place}".'
    )
    way = [link("New event"), press("Save event", event_fields(event))]
    return Problem(text, way, [added(event)])


@template("calendar")
def create_weekly_event(world: World, rng: np.random.Generator) -> Problem:
    """With a field that another one calls for."""
    event = _new(world, rng)
    event.until = later(event.day, 7 * int(rng.integers(2, 8)))
    way = [
        link("New event"),
        press("Save event", {**event_fields(event), "Repeat": "every week", "Last day": event.until}),
    ]
    text = (
        f'Put "{event.title}" into my calendar every week from {event.day} until {event.until}, from {event.start} to '
        f'{event.end}, at the place "{event.place}".'
    )
    return Problem(text, way, [added(event)])


@template("calendar")
def create_event_with_guest(world: World, rng: np.random.Generator) -> Problem:
    """Two records."""
    event, who = _new(world, rng), pick(rng, world.people)
    way = [link("New event"), press("Save event", {**event_fields(event), "Guest": who.email})]
    guest = Guest(event_id=1 + max(event.id for event in world.calendar.events), email=who.email)
    text = (
        f'Put "{event.title}" into my calendar on {event.day} from {event.start} to {event.end}, at the place '
        f'"{event.place}", with the guest {who.email}.'
    )
    return Problem(text, way, [added(event), added(guest)])


@template("calendar")
def move_event(world: World, rng: np.random.Generator) -> Problem:
    """To another day."""
    event = pick(rng, _single(world))
    day = later(event.day, int(rng.integers(1, 15)))
    way = [*find(event), press("Save event", {"Day": day})]
    return Problem(f'Move "{event.title}" in my calendar to {day}, at the same time.', way, [changed(event, day=day)])


@template("calendar")
def change_place(world: World, rng: np.random.Generator) -> Problem:
    """One field."""
    event, place = pick(rng, world.calendar.events), pick(rng, NEW_PLACES)
    way = [*find(event), press("Save event", {"Place": place})]
    return Problem(f'Set the place of "{event.title}" in my calendar to "{place}".', way, [changed(event, place=place)])


@template("calendar")
def delete_event(world: World, rng: np.random.Generator) -> Problem:
    """Behind a question."""
    event = pick(rng, _single(world))
    guests = [guest for guest in world.calendar.guests if guest.event_id == event.id]
    way = [*find(event), press("Delete event"), press("Yes")]
    text = f'Delete "{event.title}" from my calendar.'
    return Problem(text, way, [removed(event), *map(removed, guests)])


@template("calendar")
def skip_one_time(world: World, rng: np.random.Generator) -> Problem:
    """Of an event that repeats."""
    event = pick(rng, [event for event in world.calendar.events if event.until])
    day = pick(rng, [one.day for one in occurrences([event], [], event.day, event.until)])
    way = [*find(event), press(f"Skip {day}")]
    text = f'Skip "{event.title}" in my calendar on {day} only.'
    return Problem(text, way, [added(Skip(event_id=event.id, day=day))])


@template("calendar")
def ask_guest(world: World, rng: np.random.Generator) -> Problem:
    """One more."""
    event = pick(rng, world.calendar.events)
    there = {guest.email for guest in world.calendar.guests if guest.event_id == event.id}
    who = pick(rng, [who for who in world.people if who.email not in there])
    way = [*find(event), press("Ask to come", {"Guest": who.email})]
    text = f'Add the guest {who.email} to "{event.title}" in my calendar.'
    return Problem(text, way, [added(Guest(event_id=event.id, email=who.email))])


@template("calendar")
def accept_invitation(world: World, rng: np.random.Generator) -> Problem:
    """It becomes an event."""
    one = pick(rng, world.calendar.invitations)
    event = Event(title=one.title, day=one.day, start=one.start, end=one.end, place=one.place, until="")
    way = [link("Invitations"), link(one.title), press("Accept")]
    text = f"Accept the invitation from {one.host} in my calendar, without a note."
    return Problem(text, way, [changed(one, status="accepted"), added(event)])


@template("calendar")
def decline_invitation(world: World, rng: np.random.Generator) -> Problem:
    """With a note."""
    one, note = pick(rng, world.calendar.invitations), pick(rng, ("Sorry, I am ill", "I am abroad then", "Next time"))
    way = [link("Invitations"), link(one.title), press("Decline", {"Note to the host": note})]
    text = f'Decline the invitation from {one.host} in my calendar with the note "{note}".'
    return Problem(text, way, [changed(one, status="declined", note=note)])


@template("calendar")
def book_free_time(world: World, rng: np.random.Generator) -> Problem:
    """The first there is."""
    day, minutes, title = pick(rng, _days(world)), pick(rng, (60, 90, 120)), pick(rng, TITLES)
    starts = free_starts(_on(world, day), minutes)
    if not starts or starts[0] == clock(480):
        raise Unsuitable
    event = Event(title=title, day=day, start=starts[0], end=plus(starts[0], minutes), place="", until="")
    way = [
        link("Free time"),
        press("Show free time", {"On day": day, "Minutes": str(minutes)}),
        link(starts[0]),
        press("Save event", {"Title": title, "End": event.end}),
    ]
    text = (
        f'Put "{title}" into my calendar on {day}, for {minutes} minutes, at the earliest time that is free '
        "according to "
        "the page Free time. Leave the place empty."
    )
    return Problem(text, way, [added(event)])


# --- parts ----------------------------------------------------------------------------------------------------------


def find(event: Event) -> list[Stage]:
    """By a search for its title."""
    return [link("Find event"), press("Find", {"Title contains": event.title}), link(event.title)]


def _single(world: World) -> list[Event]:
    return [event for event in world.calendar.events if not event.until]


def _days(world: World) -> list[str]:
    return sorted({event.day for event in world.calendar.events})


def _on(world: World, day: str) -> list[Event]:
    return [one.event for one in occurrences(world.calendar.events, world.calendar.skips, day, day)]


def _new(world: World, rng: np.random.Generator) -> Event:
    day, start = later(world.profile.now, int(rng.integers(2, 50))), 60 * int(rng.integers(8, 20))
    end, place = clock(start + int(pick(rng, (30, 60, 90)))), pick(rng, NEW_PLACES)
    return Event(title=pick(rng, TITLES), day=day, start=clock(start), end=end, place=place, until="")


def event_fields(event: Event) -> dict[str, str | bool]:
    """What the form for a new event is filled in with."""
    return {"Title": event.title, "Day": event.day, "Start": event.start, "End": event.end, "Place": event.place}
