"""Where a store is, as an option says it: a URL whose password is used and never shown or written down."""

from __future__ import annotations

from typing import Annotated, Self, TypeAlias

from pydantic import AfterValidator
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVER = "postgresql+psycopg"
_FIX = "write postgresql+psycopg://user@host/database, or nothing for a file in the run's folder"


class StoreUrl(str):
    """The URL without its password, which `password` keeps: as a string it can be stored, compared and printed.

    Empty for a SQLite file in the run's folder. Raises `ValueError` for what is no URL of a PostgreSQL.
    """

    password: str | None

    def __new__(cls, text: str) -> Self:  # noqa: D102  # the class says it
        if isinstance(text, cls):
            return text
        try:
            url = make_url(text) if text else None
        except (ArgumentError, ValueError) as error:
            raise ValueError(f"this is no URL of a store: {_FIX}") from error
        if url is not None and url.get_backend_name() != "postgresql":
            raise ValueError(f"a store is no {url.get_backend_name()!r} database: {_FIX}")
        password = None if url is None else url.password or url.query.get("password")
        shown = "" if url is None else _without_password(url).render_as_string()
        self = super().__new__(cls, shown)
        self.password = password if isinstance(password, str) else None
        return self

    def full(self) -> URL:
        """To connect with. Without a password the client looks into `PGPASSWORD` and the password file."""
        return make_url(str(self)).set(drivername=DRIVER, password=self.password)


StoreAddress: TypeAlias = Annotated[str, AfterValidator(StoreUrl)]
"""The type of an option."""


def _without_password(url: URL) -> URL:
    query = {name: value for name, value in url.query.items() if name != "password"}
    return URL.create(DRIVER, url.username, None, url.host, url.port, url.database, query)
