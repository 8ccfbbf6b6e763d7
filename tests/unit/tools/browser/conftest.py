import http.server
import shutil
import threading
from contextlib import asynccontextmanager, suppress
from email.message import Message
from urllib.parse import parse_qs, urlsplit

import pytest

from agent_rl import ToolCall, run_tool_calls
from agent_rl_tools.browser import BrowserConfig, open_browser

PAGES = {
    "/": """<title>Shop</title><h1>Shop</h1><a href="/hats">Hats</a><form action="/found">
        <input name="q" aria-label="Search"><select name="size" aria-label="Size"><option>S</option><option>L</option>
        </select><button>Go</button></form><a href="/hats" target="_blank">Hats elsewhere</a>
        <button onclick="this.textContent = 'Pressed'">Press</button><div style="height: 3000px"></div><p>Bottom</p>""",
    "/hats": "<title>Hats</title><h1>Hats</h1><p>Two hats</p>",
}


class Site:
    """A server that counts: `hits` are paths in order, `asked` the headers of the last, `more` pages beside PAGES."""

    def __init__(self, url):
        self.url = url
        self.port = urlsplit(url).port
        self.hits = []
        self.asked = Message()
        self.more = {}

    def pages(self, **pages):
        self.more.update({f"/{name}": text for name, text in pages.items()})


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url, site = urlsplit(self.path), self.server.site
        site.hits.append(url.path)
        site.asked = self.headers
        query = parse_qs(url.query)
        if url.path == "/to":
            self.answer(b"", 302, {"Location": query["url"][0]})
        elif url.path == "/never":
            self.server.ended.wait(60)
        elif url.path == "/file":
            self.answer(b"x" * 10, headers={"Content-Disposition": "attachment; filename=secret.bin"})
        else:
            text = {**PAGES, **site.more}.get(url.path, f"<title>Found</title><p>Found {query}</p>")
            kind = "text/javascript" if url.path.endswith(".js") else "text/html"
            self.answer(text.encode(), headers={"Content-Type": kind})

    def do_POST(self):
        self.server.site.hits.append(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(b"posted " + body)

    def answer(self, body, status=200, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def handle(self):
        with suppress(OSError):  # the browser hung up
            super().handle()


@pytest.fixture
def sites():
    """`sites()`: another real server, on a port of its own."""
    servers = []

    def start():
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads = True
        server.ended = threading.Event()
        server.site = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return server.site

    yield start
    for server, thread in servers:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site(sites):
    return sites()


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def chromium():
    if not any(map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))):
        pytest.skip("Chromium is not installed: apt install chromium-headless-shell")


@pytest.fixture(scope="module")
async def browser(anyio_backend, chromium):
    """One for all tests that do not kill it."""
    async with open_browser(BrowserConfig(action_timeout_s=5, load_timeout_s=5)) as opened:
        yield opened


@pytest.fixture
def browsing(browser):
    """`async with browsing(url) as tools`: an episode in the shared browser, or in `shared`."""

    @asynccontextmanager
    async def episode(url, shared=None, **options):
        tools = await (shared or browser).tools(url, **options)
        try:
            yield tools
        finally:
            await tools.close()

    return episode


@pytest.fixture
def call():
    async def run(tools, name, **arguments):
        [result] = await run_tool_calls(tools.tools, [ToolCall("1", f"browser_{name}", arguments)])
        return result

    return run


@pytest.fixture
def ref_of():
    """The ref of the element whose line has a name."""

    def find(text, name):
        line = next(line for line in text.splitlines() if f'"{name}"' in line)
        return line.partition("[")[2].partition("]")[0]

    return find
