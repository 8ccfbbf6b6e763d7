"""The viewer as a web server for one reader on this machine.

Whoever has the token may look; nobody may write, since nothing here does. The token comes in the first address, and
from then on in a cookie that scripts cannot read and other sites cannot send. The Host header must name this machine:
a page from elsewhere could else reach us under a name that it controls (DNS rebinding).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from agent_rl.config import build
from agent_rl.errors import NotFoundError, UserError
from agent_rl.view import summary
from agent_rl.view.answers import STATIC, Answers, to_json
from agent_rl.view.queries import EpisodeQuery
from agent_rl.view.reading import Library, RunFolder
from agent_rl.web import Request, Response

# isort: split
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOSTS = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def make_app(library: Library, token: str) -> ASGIApp:
    """The application. Only those who know `token` get an answer."""
    answers = Answers(library)

    def one_run(answer: Callable[[RunFolder, Request], Any]) -> Callable[[Request], Response]:
        return lambda request: _json(answer(library.run(request.path_params["run"]), request))

    def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    def runs(request: Request) -> Response:
        return _json(answers.runs())

    def partners(request: Request) -> Response:
        return _json(answers.partners(request.query_params.get("task", "")))

    routes = [
        Route("/", page),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/api/runs", runs),
        Route("/api/partners", partners),
        Route("/api/runs/{run}/overview", one_run(lambda run, _: answers.overview(run))),
        Route("/api/runs/{run}/settings", one_run(lambda run, _: {"settings": summary.settings(run.path)})),
        Route(
            "/api/runs/{run}/metrics", one_run(lambda run, asked: summary.metrics(run.path, _int(asked, "after", -1)))
        ),
        Route("/api/runs/{run}/choices", one_run(lambda run, _: answers.choices(run))),
        Route("/api/runs/{run}/episodes", one_run(lambda run, asked: answers.episodes(run, _query(asked)))),
        Route(
            "/api/runs/{run}/episodes/{group:int}/{member:int}",
            one_run(lambda run, asked: answers.episode(run, *_place(asked))),
        ),
        Route(
            "/api/runs/{run}/episodes/{group:int}/{member:int}/tokens",
            one_run(lambda run, asked: answers.tokens(run, *_place(asked))),
        ),
        Route(
            "/api/runs/{run}/timeline",
            one_run(lambda run, asked: answers.timeline(run, _int(asked, "first", 0), _int(asked, "count", 8))),
        ),
    ]
    handlers = {UserError: _mistake, HTTPException: _unknown}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(_Guard, token=token)])


class _Guard:
    """Lets those in who know the token, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token
        self._cookie = f"agent_rl_view_{secrets.token_hex(4)}"  # cookies know no ports: another viewer has its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        asked = request.query_params.get("token", "")
        known = self._is_token(asked)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if known:
                    headers.append("Set-Cookie", f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        app = self._app
        if urlsplit(f"//{request.headers.get('host', '')}").hostname not in _HOSTS:
            known, app = False, _refusal("This address is not the viewer's.")
        elif not (known or self._is_token(request.cookies.get(self._cookie, ""))):
            app = _refusal("The address lacks the viewer's token: open the one that agent-rl view printed.")
        await app(scope, receive, answer)

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())


def _refusal(why: str) -> Response:
    return _json({"error": why}, 403)


def _json(content: object, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


def _query(request: Request) -> EpisodeQuery:
    return build(EpisodeQuery, {name: value for name, value in request.query_params.items() if value != ""})


def _place(request: Request) -> tuple[int, int]:
    return request.path_params["group"], request.path_params["member"]


def _int(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name, str(default))
    if not value.removeprefix("-").isdecimal() or len(value) > 15:
        raise UserError(f"{name} must be a whole number, not {value[:50]!r}.")
    return int(value)


async def _mistake(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 404 if isinstance(error, NotFoundError) else 400)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)
