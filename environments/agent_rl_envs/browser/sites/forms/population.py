"""What was sent before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_rl_envs.browser.sites.database import Profile
from agent_rl_envs.browser.sites.draws import chance, later, one, order
from agent_rl_envs.browser.sites.forms.records import Application, Registration, Repair, Survey

WORKSHOPS = ("Pottery", "Bookbinding", "Bread baking", "Bicycle repair", "Photography")
SIZES = ("S", "M", "L", "XL")
DIETS = ("no restrictions", "vegetarian", "vegan", "gluten free")
POSITIONS = ("Librarian", "Gardener", "Accountant", "Driver", "Cook")
SOURCES = ("newspaper", "a friend", "job fair", "other")
USES = ("Reading room", "Loans", "Events", "Copy machine")
ROOMS = ("Kitchen", "Bathroom", "Hall", "Bedroom")
PROBLEMS = ("heating", "water", "electricity", "window")
LONGEST_WAIT = 60  # days


@dataclass(frozen=True, slots=True)
class FormsRecords:
    """All of it. No two registrations have the same workshop, no two applications the same position, no two repairs the
    same room."""

    registrations: list[Registration]
    applications: list[Application]
    surveys: list[Survey]
    repairs: list[Repair]


def make_forms(rng: np.random.Generator, me: Profile) -> FormsRecords:
    """Two of each."""
    registrations = [
        Registration(
            id=id,
            name=me.name,
            email=me.email,
            phone=f"555-{int(rng.integers(1000, 9999))}",
            workshop=WORKSHOPS[at],
            size=one(rng, SIZES),
            dinner=0,
            diet="",
            status=one(rng, ("received", "confirmed")),
            at=_past(rng, me),
        )
        for id, at in enumerate(order(rng, len(WORKSHOPS))[:2], 1)
    ]
    applications = [
        Application(
            id=id,
            position=POSITIONS[at],
            years=int(rng.integers(0, 20)),
            start=later(me.now, int(rng.integers(30, 200))),
            source=one(rng, SOURCES[:-1]),
            letter="I would like to work with you.",
            status=one(rng, ("received", "invited", "declined")),
            at=_past(rng, me),
        )
        for id, at in enumerate(order(rng, len(POSITIONS))[:2], 1)
    ]
    repairs = [
        Repair(
            id=id,
            room=ROOMS[at],
            problem=one(rng, PROBLEMS),
            details="",
            day=later(me.now, int(rng.integers(2, 30))),
            urgent=int(chance(rng, 0.3)),
            status=one(rng, ("received", "planned")),
            at=_past(rng, me),
        )
        for id, at in enumerate(order(rng, len(ROOMS))[:2], 1)
    ]
    return FormsRecords(registrations, applications, [], repairs)


def _past(rng: np.random.Generator, me: Profile) -> str:
    return f"{later(me.now, -int(rng.integers(1, 60)))} 10:00"
