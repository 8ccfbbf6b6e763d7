"""The forms' pages. Those of several pages keep what was entered in the session until the last one is sent."""

from __future__ import annotations

from sqlalchemy import select
from starlette.responses import Response

from agent_rl_envs.browser.sites.draws import later
from agent_rl_envs.browser.sites.forms import population as choices
from agent_rl_envs.browser.sites.forms.records import Application, Registration, Repair, Survey
from agent_rl_envs.browser.sites.visit import App, Refused, Visit

forms = App("forms", "Forms", {"All forms": "/", "Sent by me": "/sent"})
POOR = ("1", "2")  # ratings that ask for a comment


@forms.get("/")
def overview(visit: Visit) -> Response:
    """All forms."""
    return visit.render("overview")


# --- registration for a workshop: three pages -----------------------------------------------------------------------


@forms.get("/registration")
def registration_person(visit: Visit) -> Response:
    """Who."""
    return visit.render("registration_person", kept=visit.session.get("registration", {}))


@forms.post("/registration")
def keep_person(visit: Visit) -> Response:
    """On to the next page."""
    person = {"name": visit.text("name"), "email": visit.email("email"), "phone": visit.text("phone")}
    if visit.errors:
        return visit.render("registration_person", kept={})
    visit.session["registration"] = {**visit.session.get("registration", {}), **person}
    return visit.go("/registration/workshop")


def _begun(visit: Visit, *fields: str) -> dict[str, str]:
    """What was entered. Raises `Refused` (403) where pages before this one are missing."""
    kept = visit.session.get("registration", {})
    if not all(name in kept for name in fields):
        raise Refused(403, "Please begin with the first page of the form.")
    return kept


@forms.get("/registration/workshop")
def registration_workshop(visit: Visit) -> Response:
    """What."""
    return visit.render("registration_workshop", kept=_begun(visit, "name"), choices=choices)


@forms.post("/registration/workshop")
def keep_workshop(visit: Visit) -> Response:
    """On to the last page."""
    kept, dinner = _begun(visit, "name"), "yes" if visit.sent("dinner") else ""
    workshop, size = visit.one_of("workshop", choices.WORKSHOPS), visit.one_of("size", choices.SIZES)
    diet = visit.one_of("diet", choices.DIETS) if dinner else ""
    if visit.errors:
        return visit.render("registration_workshop", kept=kept, choices=choices)
    visit.session["registration"] = {**kept, "workshop": workshop, "size": size, "dinner": dinner, "diet": diet}
    return visit.go("/registration/review")


@forms.get("/registration/review")
def registration_review(visit: Visit) -> Response:
    """All of it once more."""
    return visit.render("registration_review", kept=_begun(visit, "name", "workshop"))


@forms.post("/registration/review")
def send_registration(visit: Visit) -> Response:
    """It."""
    kept = _begun(visit, "name", "workshop")
    same = select(Registration).where(Registration.workshop == kept["workshop"], Registration.status != "withdrawn")
    if visit.count(same):
        raise Refused(403, "You are registered for this workshop already.")
    visit.db.add(
        Registration(
            name=kept["name"],
            email=kept["email"],
            phone=kept["phone"],
            workshop=kept["workshop"],
            size=kept["size"],
            dinner=int(bool(kept["dinner"])),
            diet=kept["diet"],
            status="received",
            at=visit.now,
        )
    )
    del visit.session["registration"]
    return visit.go("/sent", "Your registration was sent.")


# --- application: two pages -----------------------------------------------------------------------------------------


@forms.get("/application")
def application_job(visit: Visit) -> Response:
    """For what, and since when."""
    return visit.render("application_job", kept=visit.session.get("application", {}), choices=choices)


@forms.post("/application")
def keep_job(visit: Visit) -> Response:
    """On to the last page."""
    job = {
        "position": visit.one_of("position", choices.POSITIONS),
        "years": str(visit.whole("years", 0, 50)),
        "start": visit.day("start"),
    }
    if "start" not in visit.errors and job["start"] <= visit.today:
        visit.errors["start"] = "Please enter a day after today."
    if visit.errors:
        return visit.render("application_job", kept={}, choices=choices)
    visit.session["application"] = job
    return visit.go("/application/letter")


@forms.get("/application/letter")
def application_letter(visit: Visit) -> Response:
    """Why."""
    if "application" not in visit.session:
        raise Refused(403, "Please begin with the first page of the form.")
    return visit.render("application_letter", job=visit.session["application"], choices=choices)


@forms.post("/application/letter")
def send_application(visit: Visit) -> Response:
    """It."""
    job = visit.session.get("application")
    if job is None:
        raise Refused(403, "Please begin with the first page of the form.")
    source, letter = visit.one_of("source", choices.SOURCES), visit.text("letter", longest=1000)
    if source == "other":
        source = visit.text("elsewhere", longest=100)
    if visit.errors:
        return visit.render("application_letter", job=job, choices=choices)
    visit.db.add(
        Application(
            position=job["position"],
            years=int(job["years"]),
            start=job["start"],
            source=source,
            letter=letter,
            status="received",
            at=visit.now,
        )
    )
    del visit.session["application"]
    return visit.go("/sent", "Your application was sent.")


# --- survey and repairs: one page -----------------------------------------------------------------------------------


@forms.get("/survey")
def survey(visit: Visit) -> Response:
    """About the library."""
    return visit.render("survey", choices=choices, poor=POOR)


@forms.post("/survey")
def send_survey(visit: Visit) -> Response:
    """It."""
    rating = visit.one_of("rating", ("1", "2", "3", "4", "5"))
    uses = [use for use in choices.USES if use in visit.form.get("uses", ())]
    comment = visit.text("comment", required=rating in POOR, longest=500)
    if not uses:
        visit.errors["uses"] = "Please check at least one."
    if visit.errors:
        return visit.render("survey", choices=choices, poor=POOR)
    visit.db.add(Survey(rating=int(rating), uses=",".join(uses), comment=comment, at=visit.now))
    return visit.go("/", "Thank you for your answers.")


def _repair_day(visit: Visit) -> str:
    day = visit.day("day")
    if "day" not in visit.errors and not visit.today < day <= later(visit.now, choices.LONGEST_WAIT):
        visit.errors["day"] = f"Please choose a day within the next {choices.LONGEST_WAIT} days."
    return day


@forms.get("/repair")
def repair(visit: Visit) -> Response:
    """In one's flat."""
    return visit.render("repair", choices=choices)


@forms.post("/repair")
def send_repair(visit: Visit) -> Response:
    """It."""
    room, problem = visit.one_of("room", choices.ROOMS), visit.one_of("problem", choices.PROBLEMS)
    day, details = _repair_day(visit), visit.text("details", required=False, longest=500)
    if visit.errors:
        return visit.render("repair", choices=choices)
    urgent = int(bool(visit.sent("urgent")))
    visit.db.add(
        Repair(room=room, problem=problem, details=details, day=day, urgent=urgent, status="received", at=visit.now)
    )
    return visit.go("/sent", "Your request was sent.")


# --- what was sent --------------------------------------------------------------------------------------------------


@forms.get("/sent")
def sent(visit: Visit) -> Response:
    """All of it."""
    kinds = {
        "registrations": visit.all(select(Registration).order_by(Registration.id)),
        "applications": visit.all(select(Application).order_by(Application.id)),
        "repairs": visit.all(select(Repair).order_by(Repair.id)),
    }
    return visit.render("sent", **kinds)


@forms.post("/registration/{id:int}/withdraw")
def withdraw_registration(visit: Visit) -> Response:
    """After a question."""
    registration = visit.get(Registration)
    registration.status = "withdrawn"
    return visit.go("/sent", f"Your registration for {registration.workshop} was withdrawn.")


def _changeable(visit: Visit) -> Repair:
    found = visit.get(Repair)
    if found.status in ("done", "withdrawn"):
        raise Refused(403, "This request is closed.")
    return found


@forms.get("/repair/{id:int}")
def repair_form(visit: Visit) -> Response:
    """To change it."""
    return visit.render("repair_change", repair=_changeable(visit))


@forms.post("/repair/{id:int}")
def change_repair(visit: Visit) -> Response:
    """Its day, whether it is urgent, its details."""
    found, day, details = _changeable(visit), _repair_day(visit), visit.text("details", required=False, longest=500)
    if visit.errors:
        return visit.render("repair_change", repair=found)
    found.day, found.details, found.urgent = day, details, int(bool(visit.sent("urgent")))
    return visit.go("/sent", "Your request was changed.")
