"""The calendar's tables. Days are 2026-03-18, times 09:30."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from agent_rl_envs.browser.sites.database import Record


class Event(Record):
    """An event, on one day. `until` is the last day of one that repeats every week; else it is empty."""

    __tablename__ = "events"
    title: Mapped[str]
    day: Mapped[str]
    start: Mapped[str]
    end: Mapped[str]
    place: Mapped[str] = mapped_column(default="")
    until: Mapped[str] = mapped_column(default="")


class Skip(Record):
    """A day on which an event that repeats does not take place."""

    __tablename__ = "skips"
    event_id: Mapped[int]
    day: Mapped[str]


class Guest(Record):
    """Somebody who was asked to come."""

    __tablename__ = "guests"
    event_id: Mapped[int]
    email: Mapped[str]


class Invitation(Record):
    """What others ask the owner to; `status` is open, accepted or declined."""

    __tablename__ = "invitations"
    host: Mapped[str]
    title: Mapped[str]
    day: Mapped[str]
    start: Mapped[str]
    end: Mapped[str]
    place: Mapped[str]
    status: Mapped[str]
    note: Mapped[str]
