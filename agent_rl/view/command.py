"""`agent-rl view`: look at runs in a browser, or write them to a folder that a browser can open."""

from __future__ import annotations

import secrets
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
from pydantic import Field
from rich.console import Console

from agent_rl.config import Config
from agent_rl.errors import UserError
from agent_rl.options import OptionStyle, parse_options

LOOPBACK = "127.0.0.1"


class ViewConfig(Config):
    """Look at runs: curves, episodes, tokens, timelines."""

    runs: tuple[Path, ...] = Field(
        default=(), description="Run folders, or folders that hold some; several to compare. None: runs/."
    )
    port: int = Field(default=0, ge=0, le=65535, description="Port on this machine; 0 takes a free one.")
    browser: bool = Field(default=True, description="Open the page in a browser.")
    static: Path | None = Field(
        default=None, description="Write the page and all data to this folder instead, to open from disk or send on."
    )
    store: str = Field(default="", description="URL of the runs' PostgreSQL with its password, where that is needed.")


def view_command(argv: Sequence[str]) -> None:
    """Look at runs in a browser: curves, episodes, tokens, timelines."""
    config = parse_options(ViewConfig, argv, prog="agent-rl view", style=OptionStyle(positional="runs"))
    run(config, Console(highlight=False, soft_wrap=True, markup=False).print)


def run(config: ViewConfig, say: Callable[[str], object], on_url: Callable[[str], object] | None = None) -> None:
    """Serve until interrupted, or export. `on_url` gets the address once it answers; by default a browser does.

    Raises `UserError` for a folder that is not there.
    """
    from agent_rl.view.export import export
    from agent_rl.view.reading import Library

    for path in config.runs:
        if not path.is_dir():
            raise UserError(f"There is no folder {path}: name one that `agent-rl train` or `eval --run-dir` wrote.")
    library = Library(config.runs or [Path("runs")], config.store)
    try:
        if config.static is not None:
            count = export(library, config.static, on_run=lambda id: say(f"Writing {id} ..."))
            say(f"{count} runs are in {config.static}: open {config.static / 'index.html'} in a browser.")
        else:
            anyio.run(_serve, library, config.port, say, on_url or (webbrowser.open if config.browser else _leave))
    finally:
        library.close()


def _leave(url: str) -> None:
    """The reader opens it."""


async def _serve(library: object, port: int, say: Callable[[str], object], on_url: Callable[[str], object]) -> None:
    from agent_rl.view.reading import Library
    from agent_rl.view.server import make_app
    from agent_rl.web import listen, serving

    assert isinstance(library, Library)
    token = secrets.token_urlsafe(24)
    listener = listen(LOOPBACK, port)
    url = f"http://{LOOPBACK}:{listener.getsockname()[1]}/?token={token}"
    async with serving(make_app(library, token), listener):
        say(f"The viewer is at {url} (Ctrl-C ends it).")
        await anyio.to_thread.run_sync(on_url, url)
        await anyio.sleep_forever()
