"""The calendar's pages."""

from __future__ import annotations

import calendar as months
import re

from sqlalchemy import delete, select
from starlette.responses import Response

from agent_rl_envs.browser.sites.calendar.days import Occurrence, free_starts, occurrences
from agent_rl_envs.browser.sites.calendar.records import Event, Guest, Invitation, Skip
from agent_rl_envs.browser.sites.draws import later
from agent_rl_envs.browser.sites.formats import is_day
from agent_rl_envs.browser.sites.mail.records import Contact
from agent_rl_envs.browser.sites.visit import App, Refused, Visit

calendar = App(
    "calendar",
    "Calendar",
    {
        "Month": "/",
        "Week": "/week",
        "New event": "/new",
        "Find event": "/find",
        "Free time": "/free",
        "Invitations": "/invitations",
    },
)
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
LENGTHS = ("30", "60", "90", "120")
REPEATS = ("never", "every week")


def _between(visit: Visit, first: str, last: str) -> list[Occurrence]:
    return occurrences(visit.all(select(Event)), visit.all(select(Skip)), first, last)


# --- looking --------------------------------------------------------------------------------------------------------


@calendar.get("/")
def month_page(visit: Visit) -> Response:
    """A month, week by week."""
    asked = visit.asked("month", visit.today[:7])
    month = asked if is_day(f"{asked}-01") and asked[:4] not in ("0001", "9999") else visit.today[:7]
    year, number = int(month[:4]), int(month[5:])
    weeks = [[day.isoformat() for day in week] for week in months.Calendar().monthdatescalendar(year, number)]
    found = _between(visit, weeks[0][0], weeks[-1][-1])
    by_day = {day: [one.event for one in found if one.day == day] for week in weeks for day in week}
    before, after = later(f"{month}-01", -1)[:7], later(f"{month}-28", 4)[:7]
    return visit.render("month", month=month, weeks=weeks, by_day=by_day, before=before, after=after)


@calendar.get("/week")
def week_page(visit: Visit) -> Response:
    """Seven days from one on."""
    asked = visit.asked("from", visit.today)
    first = asked if is_day(asked) and asked[:4] not in ("0001", "9999") else visit.today
    days = [later(first, at) for at in range(7)]
    found = _between(visit, days[0], days[-1])
    return visit.render("week", days=[(day, [o.event for o in found if o.day == day]) for day in days])


@calendar.get("/day/{day}")
def day_page(visit: Visit) -> Response:
    """What is on."""
    day = visit.path["day"]
    if not is_day(day):
        raise Refused(404, "There is no such day.")
    return visit.render("day", day=day, events=[one.event for one in _between(visit, day, day)])


@calendar.get("/find")
def find(visit: Visit) -> Response:
    """By words of the title."""
    words = visit.asked("q")
    query = (
        select(Event).where(Event.title.icontains(words, autoescape=True))
        if words
        else select(Event).where(Event.id == 0)
    )
    return visit.render("find", words=words, page=visit.page(query.order_by(Event.day, Event.start, Event.id)))


@calendar.get("/free")
def free(visit: Visit) -> Response:
    """When there is time on a day."""
    day, minutes = visit.asked("day"), visit.asked("minutes", LENGTHS[1])
    starts: list[str] | None = None
    if is_day(day) and minutes in LENGTHS:
        starts = free_starts([one.event for one in _between(visit, day, day)], int(minutes))
    return visit.render("free", day=day, minutes=minutes, starts=starts, lengths=LENGTHS)


# --- events ---------------------------------------------------------------------------------------------------------


def _times(visit: Visit) -> tuple[str, str, str]:
    day, start, end = visit.day("day"), visit.sent("start"), visit.sent("end")
    for name, time in (("start", start), ("end", end)):
        if not _TIME.fullmatch(time):
            visit.errors[name] = "Please enter a time as HH:MM."
    if not visit.errors.keys() & {"start", "end"} and end <= start:
        visit.errors["end"] = "The end has to be after the start."
    return day, start, end


@calendar.get("/new")
def event_form(visit: Visit) -> Response:
    """A new event."""
    return visit.render("new", day=visit.asked("day"), start=visit.asked("start"), repeats=REPEATS)


@calendar.post("/new")
def add_event(visit: Visit) -> Response:
    """With its guests."""
    title, place = visit.text("title", longest=100), visit.text("place", required=False)
    (day, start, end), until = _times(visit), ""
    if visit.one_of("repeat", REPEATS) == "every week":
        until = visit.day("until")
        if "until" not in visit.errors and not day < until <= later(visit.now, 1000):
            visit.errors["until"] = "Please enter a day after the first one, within three years."
    guest = visit.email("guest") if visit.sent("guest") else ""
    if visit.errors:
        return visit.render("new", day="", start="", repeats=REPEATS)
    event = Event(title=title, day=day, start=start, end=end, place=place, until=until)
    visit.db.add(event)
    visit.db.flush()
    if guest:
        visit.db.add(Guest(event_id=event.id, email=guest))
    return visit.go(f"/event/{event.id}", "The event was saved.")


@calendar.get("/suggest")
def suggest(visit: Visit) -> Response:
    """Addresses of whom is typed."""
    return visit.suggestions(Contact.email)


@calendar.get("/event/{id:int}")
def event_page(visit: Visit) -> Response:
    """One event, with its guests."""
    return _show_event(visit, visit.get(Event))


def _show_event(visit: Visit, event: Event) -> Response:
    guests = visit.all(select(Guest).where(Guest.event_id == event.id).order_by(Guest.id))
    days = [one.day for one in occurrences([event], visit.all(select(Skip)), event.day, event.until)]
    return visit.render("event", event=event, guests=guests, days=days if event.until else [])


@calendar.post("/event/{id:int}")
def change_event(visit: Visit) -> Response:
    """Title, time and place."""
    event, title, place = visit.get(Event), visit.text("title", longest=100), visit.text("place", required=False)
    day, start, end = _times(visit)
    if event.until and "day" not in visit.errors and day > event.until:
        visit.errors["day"] = "This is after the last time of the event."
    if visit.errors:
        return _show_event(visit, event)
    event.title, event.place, event.day, event.start, event.end = title, place, day, start, end
    return visit.go(f"/event/{event.id}", "The event was saved.")


@calendar.post("/event/{id:int}/delete")
def delete_event(visit: Visit) -> Response:
    """With its guests, all times of it."""
    event = visit.get(Event)
    for kind in (Guest, Skip):
        visit.db.execute(delete(kind).where(kind.event_id == event.id))
    visit.db.delete(event)
    return visit.go("/", "The event was deleted.")


@calendar.post("/event/{id:int}/skip/{day}")
def skip(visit: Visit) -> Response:
    """One time of several."""
    event, day = visit.get(Event), visit.path["day"]
    if day not in [one.day for one in occurrences([event], visit.all(select(Skip)), event.day, event.until)]:
        raise Refused(404, "The event does not take place then.")
    visit.db.add(Skip(event_id=event.id, day=day))
    return visit.go(f"/event/{event.id}", f"It does not take place on {day}.")


@calendar.post("/event/{id:int}/guests")
def add_guest(visit: Visit) -> Response:
    """Nobody twice."""
    event, email = visit.get(Event), visit.email("guest")
    if visit.count(select(Guest).where(Guest.event_id == event.id, Guest.email == email)):
        visit.errors["guest"] = "This guest was asked already."
    if visit.errors:
        return _show_event(visit, event)
    visit.db.add(Guest(event_id=event.id, email=email))
    return visit.go(f"/event/{event.id}", f"{email} was asked to come.")


@calendar.post("/guest/{id:int}/remove")
def remove_guest(visit: Visit) -> Response:
    """One of them."""
    guest = visit.get(Guest)
    visit.db.delete(guest)
    return visit.go(f"/event/{guest.event_id}", f"{guest.email} was taken off.")


# --- invitations ----------------------------------------------------------------------------------------------------


@calendar.get("/invitations")
def invitations(visit: Visit) -> Response:
    """Those that are open, and those that were answered."""
    return visit.render("invitations", invitations=visit.all(select(Invitation).order_by(Invitation.id)))


@calendar.get("/invitation/{id:int}")
def invitation_page(visit: Visit) -> Response:
    """One."""
    return visit.render("invitation", invitation=visit.get(Invitation))


@calendar.post("/invitation/{id:int}")
def answer_invitation(visit: Visit) -> Response:
    """What is accepted gets into the calendar."""
    found, answer = visit.get(Invitation), visit.one_of("answer", ("accepted", "declined"))
    note = visit.text("note", required=False)
    if found.status != "open":
        raise Refused(403, "You have answered this invitation.")
    if visit.errors:
        return visit.render("invitation", invitation=found)
    found.status, found.note = answer, note
    if answer == "accepted":
        visit.db.add(Event(title=found.title, day=found.day, start=found.start, end=found.end, place=found.place))
    return visit.go("/invitations", f"You have {answer} the invitation.")
