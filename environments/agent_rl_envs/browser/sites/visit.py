"""An app's handlers and what they work with: one request of one episode, its database, its session, its form.

A handler is a plain function from a `Visit` to a response. Databases are in memory, so it answers within milliseconds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from agent_rl_envs.browser.sites.database import Profile, Record
from agent_rl_envs.browser.sites.formats import is_day, money

R = TypeVar("R", bound=Record)
PER_PAGE = 10
_SUGGESTIONS = 5
_LONGEST = 500
_LARGEST_ID = 2**31
_SEE_OTHER = 303


class Refused(Exception):
    """The request cannot be served: a page that is not there (404), a thing that may not be done (403)."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, with its place in the whole. `query` is that of the address, without the page."""

    items: Sequence[Any]
    number: int
    pages: int
    total: int
    query: Mapping[str, str]

    def address(self, number: int) -> str:
        """That of another page of the list."""
        return "?" + urlencode({**self.query, "page": number})


class Visit:
    """One request. `errors` are by field, and filled in by the methods that read the form."""

    def __init__(
        self,
        app: App,
        db: Session,
        path: Mapping[str, Any],
        query: Mapping[str, str],
        form: Mapping[str, Sequence[str]],
        session: dict[str, Any],
    ) -> None:
        self.app, self.db, self.path, self.query, self.form, self.session = app, db, path, query, form, session
        self.errors: dict[str, str] = {}
        profile = db.get(Profile, 1)
        assert profile is not None, "every database has an owner"
        self.me = profile

    @property
    def now(self) -> str:
        """The time, which stands still."""
        return self.me.now

    @property
    def today(self) -> str:
        """The day of `now`."""
        return self.now[:10]

    # --- what was sent ----------------------------------------------------------------------------------------------

    def asked(self, name: str, default: str = "") -> str:
        """A parameter of the address."""
        return self.query.get(name, default).strip()[:_LONGEST]

    def sent(self, name: str) -> str:
        """A field of the form, without blanks around; empty where there is none."""
        return next(iter(self.form.get(name, ())), "").strip()

    def chosen(self, name: str) -> list[int]:
        """The ids of the boxes with this name that were checked."""
        return [int(value) for value in self.form.get(name, ()) if re.fullmatch(r"\d{1,9}", value, re.ASCII)]

    def text(self, name: str, *, required: bool = True, longest: int = 200) -> str:
        """A text. Notes an error where it is missing or too long."""
        text = self.sent(name).replace("\r\n", "\n")
        if required and not text:
            self.errors[name] = "Please fill in this field."
        elif len(text) > longest:
            self.errors[name] = f"Please use at most {longest} characters."
        return text

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number. Notes an error where it is none or out of range."""
        text = self.sent(name)
        if re.fullmatch(r"\d{1,9}", text, re.ASCII) and low <= int(text) <= high:
            return int(text)
        self.errors[name] = f"Please enter a whole number from {low} to {high}."
        return low

    def one_of(self, name: str, options: Sequence[str], *, required: bool = True) -> str:
        """One of the options. Notes an error for anything else."""
        text = self.sent(name)
        if text not in options and (required or text):
            self.errors[name] = "Please choose one of the options."
        return text

    def day(self, name: str) -> str:
        """A day such as 2026-03-18. Notes an error where it is none."""
        text = self.sent(name)
        if not is_day(text):
            self.errors[name] = "Please enter a day as YYYY-MM-DD."
        return text

    def email(self, name: str) -> str:
        """An address of a mailbox. Notes an error where it is none."""
        text = self.text(name)
        if text and not re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", text):
            self.errors[name] = "Please enter an e-mail address such as ann@example.com."
        return text

    # --- records ----------------------------------------------------------------------------------------------------

    def get(self, kind: type[R], id: int | None = None) -> R:
        """The record with this id, or with the one in the address. Raises `Refused` (404) where there is none."""
        id = int(self.path["id"]) if id is None else id
        found = self.db.get(kind, id) if id < _LARGEST_ID else None
        if found is None:
            raise Refused(404, f"There is no such {kind.__name__.lower()}.")
        return found

    def all(self, query: Select[R]) -> Sequence[R]:
        """The records of a query."""
        return self.db.scalars(query).all()

    def count(self, query: Select[Any]) -> int:
        """How many rows a query has."""
        return self.db.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0

    def suggestions(self, shown: InstrumentedAttribute[str], *also: InstrumentedAttribute[str]) -> Response:
        """The first values of `shown` that hold what is typed (`q`), there or in one of the columns `also`."""
        typed = self.asked("q")
        matches = or_(*(column.icontains(typed, autoescape=True) for column in (shown, *also)))
        query = select(shown).where(matches).order_by(*also, shown).limit(_SUGGESTIONS)
        return JSONResponse(list(self.db.scalars(query)) if typed else [])

    def page(self, query: Select[R], size: int = PER_PAGE) -> Page:
        """The part of a list that the address asks for."""
        total = self.count(query)
        pages = max(1, -(-total // size))
        asked = self.asked("page", "1")
        number = min(pages, max(1, int(asked))) if re.fullmatch(r"\d{1,6}", asked, re.ASCII) else 1
        items = self.all(query.limit(size).offset(size * (number - 1)))
        return Page(items, number, pages, total, {name: value for name, value in self.query.items() if name != "page"})

    # --- answers ----------------------------------------------------------------------------------------------------

    def render(self, template: str, **values: Any) -> Response:
        """A page of this app; 422 where the form had errors."""
        flashes: list[str] = self.session.pop("flashes", [])
        page = _templates().get_template(f"{self.app.name}/{template}.html")
        html = page.render(visit=self, me=self.me, errors=self.errors, flashes=flashes, app=self.app, **values)
        return HTMLResponse(html, 422 if self.errors else 200)

    def go(self, address: str, said: str = "") -> Response:
        """To another page of this app, with a message for its top."""
        if said:
            self.session.setdefault("flashes", []).append(said)
        return RedirectResponse(address, _SEE_OTHER)

    def refuse(self, why: Refused) -> Response:
        """The page that says so."""
        html = _templates().get_template("refused.html")
        text = html.render(visit=self, me=self.me, errors={}, flashes=[], app=self.app, why=str(why))
        return HTMLResponse(text, why.status)


Handler: TypeAlias = Callable[[Visit], Response]


@dataclass(frozen=True, slots=True)
class App:
    """One site: its name, what its pages are called, the links at their top, and its handlers by method and path."""

    name: str
    title: str
    links: Mapping[str, str]
    routes: list[tuple[str, str, Handler]] = field(default_factory=list[tuple[str, str, Handler]])

    @property
    def host(self) -> str:
        """Its address is http:// and this."""
        return f"{self.name}.test"

    def get(self, path: str) -> Callable[[Handler], Handler]:
        """Serve a page; it changes nothing."""
        return self._route("GET", path)

    def post(self, path: str) -> Callable[[Handler], Handler]:
        """Take a form."""
        return self._route("POST", path)

    def _route(self, method: str, path: str) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.routes.append((method, path, handler))
            return handler

        return add


@functools.cache
def _templates() -> Environment:
    loader = PackageLoader("agent_rl_envs.browser.sites", "pages")
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    templates.filters["money"] = money
    return templates
