"""What was sent with the forms."""

from __future__ import annotations

from sqlalchemy.orm import Mapped

from agent_rl_envs.browser.sites.database import Record


class Registration(Record):
    """For a workshop. `dinner` is 0 or 1, `diet` empty without dinner; `status` is received, confirmed or withdrawn."""

    __tablename__ = "registrations"
    name: Mapped[str]
    email: Mapped[str]
    phone: Mapped[str]
    workshop: Mapped[str]
    size: Mapped[str]
    dinner: Mapped[int]
    diet: Mapped[str]
    status: Mapped[str]
    at: Mapped[str]


class Application(Record):
    """For a job. `source` says where somebody heard of it; `status` is received, invited or declined."""

    __tablename__ = "applications"
    position: Mapped[str]
    years: Mapped[int]
    start: Mapped[str]
    source: Mapped[str]
    letter: Mapped[str]
    status: Mapped[str]
    at: Mapped[str]


class Survey(Record):
    """Answers to the survey. `uses` are joined by commas, in the order of the form."""

    __tablename__ = "surveys"
    rating: Mapped[int]
    uses: Mapped[str]
    comment: Mapped[str]
    at: Mapped[str]


class Repair(Record):
    """A wish for a repair in the flat. `urgent` is 0 or 1; `status` is received, planned, done or withdrawn."""

    __tablename__ = "repairs"
    room: Mapped[str]
    problem: Mapped[str]
    details: Mapped[str]
    day: Mapped[str]
    urgent: Mapped[int]
    status: Mapped[str]
    at: Mapped[str]
