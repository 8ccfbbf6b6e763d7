"""The process that serves the sites: `python -m agent_rl_envs.browser.sites.server`.

It holds databases by the episodes' names, and knows neither tasks nor seeds. Which episode a request belongs to is said
by a header that the episode's proxy adds; which app, by the host. Whoever started it makes, reads and drops databases
under `/episodes/<name>`, with a secret that is read from standard input; it ends when that is closed.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeAlias
from urllib.parse import parse_qs

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Route, Router

from agent_rl.web import listen, serving
from agent_rl_envs.browser.sites import EPISODE_HEADER, SECRET_HEADER
from agent_rl_envs.browser.sites.apps import APPS
from agent_rl_envs.browser.sites.database import Database
from agent_rl_envs.browser.sites.visit import App, Handler, Refused, Visit

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_LONGEST_FORM = 200_000
_KINDS = {"css": "text/css", "js": "text/javascript"}


@dataclass(slots=True)
class _Episode:
    database: Database
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    failure: str = ""


class Episodes:
    """The databases that are open, by name."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._open: dict[str, _Episode] = {}

    def of(self, request: Request) -> _Episode | None:
        """That which a page's request belongs to."""
        return self._open.get(request.headers.get(EPISODE_HEADER, ""))

    async def put(self, request: Request) -> Response:
        """Open a database from an image, or make one anew."""
        return await self._told(request, self._put)

    async def get(self, request: Request) -> Response:
        """The image of a database; 500 with the traceback where a page of it failed."""
        return await self._told(request, self._get)

    async def delete(self, request: Request) -> Response:
        """Drop a database."""
        return await self._told(request, self._delete)

    async def _told(self, request: Request, answer: Callable[[str, bytes], Response]) -> Response:
        """Whoever does not know the secret learns nothing."""
        given = request.headers.get(SECRET_HEADER, "")
        if not hmac.compare_digest(given.encode(), self._secret.encode()):
            return PlainTextResponse("Not found", 404)
        return answer(request.path_params["name"], await request.body())

    def _put(self, name: str, body: bytes) -> Response:
        self._delete(name, b"")
        self._open[name] = _Episode(Database(body))
        return Response(status_code=204)

    def _get(self, name: str, _: bytes) -> Response:
        episode = self._open.get(name)
        if episode is None:
            return PlainTextResponse("Not found", 404)
        if episode.failure:
            return PlainTextResponse(episode.failure, 500)
        return Response(episode.database.image(), media_type="application/vnd.sqlite3")

    def _delete(self, name: str, _: bytes) -> Response:
        if episode := self._open.pop(name, None):
            episode.database.close()
        return Response(status_code=204)


def make_site(secret: str) -> Starlette:
    """All apps by their hosts, and the databases behind them."""
    episodes = Episodes(secret)
    routes: list[Any] = [Host(app.host, Router([*_static(), *_routes(app, episodes)])) for app in APPS]
    path = "/episodes/{name}"
    routes += [
        Route(path, endpoint, methods=[method])
        for method, endpoint in (("PUT", episodes.put), ("GET", episodes.get), ("DELETE", episodes.delete))
    ]
    return Starlette(routes=routes)


def _routes(app: App, episodes: Episodes) -> list[Route]:
    return [Route(path, _endpoint(app, handler, episodes), methods=[method]) for method, path, handler in app.routes]


def _endpoint(app: App, handler: Handler, episodes: Episodes) -> Endpoint:
    async def answer(request: Request) -> Response:
        episode = episodes.of(request)
        if episode is None:
            return PlainTextResponse("This page belongs to no episode.", 404)
        body = await request.body() if request.method == "POST" else b""
        if len(body) > _LONGEST_FORM:
            return PlainTextResponse("The form is too large.", 413)
        form = parse_qs(body.decode(errors="replace"), keep_blank_values=True, errors="replace")
        name = request.cookies.get("session", "")
        known = name in episode.sessions
        name = name if known else secrets.token_hex(16)
        with episode.database.session() as db:
            session = episode.sessions.setdefault(name, {})
            visit = Visit(app, db, request.path_params, dict(request.query_params), form, session)
            response = _handled(handler, visit, episode)
        if not known:
            response.set_cookie("session", name, httponly=True, samesite="strict")
        return response

    return answer


def _handled(handler: Handler, visit: Visit, episode: _Episode) -> Response:
    """What the handler gives, committed. A failure of ours is remembered, and becomes the episode's."""
    try:
        response = handler(visit)
        visit.db.commit()
        return response
    except Refused as why:
        visit.db.rollback()
        return visit.refuse(why)
    except Exception:  # noqa: BLE001  # told when the episode is judged
        episode.failure = traceback.format_exc()
        return PlainTextResponse("This page does not work at the moment.", 500)


def _static() -> list[Route]:
    return [Route(f"/site.{kind}", _file(kind), methods=["GET"]) for kind in _KINDS]


def _file(kind: str) -> Endpoint:
    content = files("agent_rl_envs.browser.sites").joinpath("static", f"site.{kind}").read_bytes()
    headers = {"Cache-Control": "max-age=86400"}

    async def answer(request: Request) -> Response:
        return Response(content, media_type=_KINDS[kind], headers=headers)

    return answer


async def _serve() -> None:
    secret = sys.stdin.readline().strip()
    listener = listen("127.0.0.1", 0)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    async with serving(make_site(secret), listener):
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(ended.wait)


if __name__ == "__main__":
    anyio.run(_serve)
