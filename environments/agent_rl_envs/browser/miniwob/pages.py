"""The pages of MiniWoB++ (arXiv:1802.08802), as the package `miniwob` has them, served on this machine."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import re
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread

from agent_rl.errors import UserError
from agent_rl.tool import share


@functools.cache
def html_folder() -> Path:
    """Where the pages are. Raises `UserError` when the package is not installed."""
    found = importlib.util.find_spec("miniwob")  # to import it would need a browser driver
    if found is None or not found.submodule_search_locations:
        raise UserError("The MiniWoB++ pages are not installed: pip install 'agent-rl[browser]'.")
    return Path(found.submodule_search_locations[0]) / "html"


@functools.cache
def page_names() -> tuple[str, ...]:
    """All pages."""
    return tuple(sorted(path.stem for path in (html_folder() / "miniwob").glob("*.html")))


def typed_names() -> list[str]:
    """The names that `enter-text` asks for."""
    words = (html_folder() / "common" / "ui_utils.js").read_text(encoding="utf-8")
    found = re.search(r"FIFTY_NAMES = \[(.*?)\]", words)
    return re.findall(r"'(\w+)'", found[1]) if found else []


async def site() -> str:
    """The address of the pages, served for as long as the run lasts."""
    return await share("miniwob pages", _serve)


@asynccontextmanager
async def _serve() -> AsyncGenerator[str, None]:
    handler = functools.partial(_Handler, directory=str(html_folder()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="miniwob pages", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/miniwob"
        finally:
            await anyio.to_thread.run_sync(server.shutdown)
            thread.join()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's news."""
