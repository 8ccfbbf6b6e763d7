"""Tasks with forms."""

from __future__ import annotations

import numpy as np

from agent_rl_envs.browser.sites.checks import added, changed
from agent_rl_envs.browser.sites.draws import later
from agent_rl_envs.browser.sites.forms import population as choices
from agent_rl_envs.browser.sites.forms.records import Application, Registration, Repair, Survey
from agent_rl_envs.browser.sites.oracle import Stage, link, press
from agent_rl_envs.browser.sites.problems import Problem, pick, some, template
from agent_rl_envs.browser.sites.world import World

LETTERS = ("I have always wanted to do this", "I learn fast and like people", "My former chef recommends me")


@template("forms")
def status_of_application(world: World, rng: np.random.Generator) -> Problem:
    """Look it up."""
    one = pick(rng, world.forms.applications)
    text = f'What is the status of the application for the position "{one.position}" that I sent? Answer with it alone.'
    return Problem(text, [link("Sent by me")], answer=one.status)


@template("forms")
def day_of_repair(world: World, rng: np.random.Generator) -> Problem:
    """Look it up."""
    one = pick(rng, world.forms.repairs)
    text = (
        f'For which day did I ask for the repair in the room "{one.room}"? Answer with the day alone, as it is written.'
    )
    return Problem(text, [link("Sent by me")], answer=one.day)


@template("forms")
def register(world: World, rng: np.random.Generator) -> Problem:
    """Three pages, without dinner."""
    registration = _registration(world, rng, "")
    text = f"{_asked(registration)} I do not come to the dinner."
    return Problem(text, _register(registration), [added(registration)])


@template("forms")
def register_with_dinner(world: World, rng: np.random.Generator) -> Problem:
    """Three pages, with a field that another one calls for."""
    registration = _registration(world, rng, pick(rng, choices.DIETS))
    text = f'{_asked(registration)} I come to the dinner; the diet is "{registration.diet}".'
    return Problem(text, _register(registration), [added(registration)])


@template("forms")
def apply_for_position(world: World, rng: np.random.Generator) -> Problem:
    """Two pages."""
    source = pick(rng, choices.SOURCES[:-1])
    application = _application(world, rng, source)
    way = _apply(application, {"I heard of it from": source})
    return Problem(f'{_wished(application)} I heard of it from "{source}".', way, [added(application)])


@template("forms")
def apply_from_elsewhere(world: World, rng: np.random.Generator) -> Problem:
    """Two pages, with a field that another one calls for."""
    source = pick(rng, ("the radio", "my neighbour", "a poster"))
    application = _application(world, rng, source)
    way = _apply(application, {"I heard of it from": "other", "Where else": source})
    text = f'{_wished(application)} I heard of it elsewhere: "{source}".'
    return Problem(text, way, [added(application)])


@template("forms")
def answer_survey(world: World, rng: np.random.Generator) -> Problem:
    """Radio buttons and boxes."""
    rating, uses = int(rng.integers(3, 6)), _uses(rng)
    survey = Survey(rating=rating, uses=",".join(uses), comment="", at=world.profile.now)
    fields: dict[str, str | bool] = {str(rating): True, **dict.fromkeys(uses, True)}
    way = [link("Library survey"), press("Send answers", fields)]
    text = f"Answer the library survey: the rating is {rating}, and I use {_listed(uses)}. Leave the comment empty."
    return Problem(text, way, [added(survey)])


@template("forms")
def complain_in_survey(world: World, rng: np.random.Generator) -> Problem:
    """A bad rating needs a comment."""
    rating, uses = int(rng.integers(1, 3)), _uses(rng)
    comment = pick(rng, ("It is too loud", "The opening hours are short", "I could not find anything"))
    survey = Survey(rating=rating, uses=",".join(uses), comment=comment, at=world.profile.now)
    fields: dict[str, str | bool] = {str(rating): True, **dict.fromkeys(uses, True), "Comment": comment}
    way = [link("Library survey"), press("Send answers", fields)]
    text = f'Answer the library survey: the rating is {rating}, I use {_listed(uses)}, and the comment is "{comment}".'
    return Problem(text, way, [added(survey)])


@template("forms")
def request_repair(world: World, rng: np.random.Generator) -> Problem:
    """A day, radio buttons and a box."""
    room, problem = pick(rng, choices.ROOMS), pick(rng, choices.PROBLEMS)
    day, urgent = later(world.profile.now, int(rng.integers(2, 40))), bool(rng.integers(2))
    details = pick(rng, ("It began yesterday", "It makes a noise", "Please bring a ladder"))
    repair = Repair(
        room=room,
        problem=problem,
        details=details,
        day=day,
        urgent=int(urgent),
        status="received",
        at=world.profile.now,
    )
    fields: dict[str, str | bool] = {"Room": room, problem: True, "Day": day, "Details": details}
    way = [link("Repair request"), press("Send request", {**fields, "It is urgent": urgent})]
    text = (
        f'Send a repair request: the problem is "{problem}" in the room "{room}", on {day}, with the details '
        f'"{details}". '
        f"It is {'' if urgent else 'not '}urgent."
    )
    return Problem(text, way, [added(repair)])


@template("forms")
def move_repair(world: World, rng: np.random.Generator) -> Problem:
    """Change what was sent."""
    repair = pick(rng, world.forms.repairs)
    day = later(world.profile.now, int(rng.integers(31, 55)))
    way = [link("Sent by me"), link(f"Change {repair.room}"), press("Save request", {"Day": day})]
    text = f'Move the repair in the room "{repair.room}" that I asked for to {day}. Leave everything else as it is.'
    return Problem(text, way, [changed(repair, day=day)])


@template("forms")
def withdraw_registration(world: World, rng: np.random.Generator) -> Problem:
    """Behind a question."""
    one = pick(rng, world.forms.registrations)
    way = [link("Sent by me"), press(f"Withdraw {one.workshop}"), press("Yes")]
    text = f'Withdraw my registration for the workshop "{one.workshop}".'
    return Problem(text, way, [changed(one, status="withdrawn")])


# --- parts ----------------------------------------------------------------------------------------------------------


def _registration(world: World, rng: np.random.Generator, diet: str) -> Registration:
    taken, who = {one.workshop for one in world.forms.registrations}, pick(rng, world.people)
    return Registration(
        name=who.name,
        email=who.email,
        phone=f"555-{int(rng.integers(1000, 9999))}",
        workshop=pick(rng, [workshop for workshop in choices.WORKSHOPS if workshop not in taken]),
        size=pick(rng, choices.SIZES),
        dinner=int(bool(diet)),
        diet=diet,
        status="received",
        at=world.profile.now,
    )


def _asked(one: Registration) -> str:
    return (
        f'Register {one.name} ({one.email}, phone {one.phone}) for the workshop "{one.workshop}". The size of the '
        "apron "
        f"is {one.size}."
    )


def _register(one: Registration) -> list[Stage]:
    choice: dict[str, str | bool] = {"Workshop": one.workshop, one.size: True}
    if one.dinner:
        choice.update({"I come to the dinner": True, "Diet": one.diet})
    return [
        link("Workshop registration"),
        press("Continue", {"Name": one.name, "E-mail": one.email, "Phone": one.phone}),
        press("Continue", choice),
        press("Send registration"),
    ]


def _application(world: World, rng: np.random.Generator, source: str) -> Application:
    return Application(
        position=pick(rng, choices.POSITIONS),
        years=int(rng.integers(1, 30)),
        source=source,
        status="received",
        start=later(world.profile.now, int(rng.integers(20, 150))),
        letter=pick(rng, LETTERS),
        at=world.profile.now,
    )


def _wished(one: Application) -> str:
    return (
        f'Send a job application for the position "{one.position}" with {one.years} years of experience and '
        f"{one.start} as "
        f'the possible start. The letter is "{one.letter}".'
    )


def _apply(one: Application, source: dict[str, str | bool]) -> list[Stage]:
    job = {"Position": one.position, "Years of experience": str(one.years), "Possible start": one.start}
    return [
        link("Job application"),
        press("Continue", {**job}),
        press("Send application", {**source, "Letter": one.letter}),
    ]


def _uses(rng: np.random.Generator) -> list[str]:
    return sorted(some(rng, choices.USES, 2), key=choices.USES.index)


def _listed(texts: list[str]) -> str:
    return " and ".join(f'"{text}"' for text in texts)
