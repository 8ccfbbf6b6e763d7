"""The browser tools on pages of a small server, in a real Chromium."""

import http.server
import os
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from playwright.async_api import Error

from agent_rl import ToolCall, run_tool_calls
from agent_rl.errors import SandboxFailure, UserError
from agent_rl_tools.browser import BrowserConfig, open_browser

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.anyio,
    # pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt install chromium"),
]
PAGES = {
    "/": """<title>Shop</title><h1>Shop</h1><a href="/hats">Hats</a><form action="/found">
        <input name="q" aria-label="Search"><select name="size" aria-label="Size"><option>S</option><option>L</option>
        </select><button>Go</button></form><a href="/hats" target="_blank">Hats elsewhere</a>
        <button onclick="this.textContent = 'Pressed'">Press</button><div style="height: 3000px"></div><p>Bottom</p>""",
    "/hats": "<title>Hats</title><h1>Hats</h1><p>Two hats</p>",
    "/img": '<title>Spy</title><img src="http://localhost:{port}/seen"><p>Picture</p>',
    "/slow": "<title>Slow</title><p>At last</p>",
}
REQUESTS: list[str] = []


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        REQUESTS.append(f"{self.headers['Host'].partition(':')[0]}{url.path}")
        if url.path == "/away":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/hats")
            self.end_headers()
            return
        text = PAGES.get(url.path, f"<title>Found</title><p>Found {parse_qs(url.query)}</p>")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(text.replace("{port}", str(self.server.server_port)).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(serving):
    with serving(Handler) as url:
        yield url


@asynccontextmanager
async def browsing(url, **options):
    async with open_browser(BrowserConfig(action_timeout_s=3)) as browser:
        tools = await browser.tools(url, **options)
        try:
            yield browser, tools
        finally:
            await tools.close()


async def call(tools, name, **arguments):
    [result] = await run_tool_calls(tools.tools, [ToolCall("1", f"browser_{name}", arguments)])
    return result


def ref(snapshot, name):
    """The ref of the element whose line has `name`."""
    line = next(line for line in snapshot.splitlines() if f'"{name}"' in line)
    return line.partition("[")[2].partition("]")[0]


async def test_a_page_is_seen_and_acted_on(site):
    async with browsing(site) as (_, tools):
        look = (await call(tools, "snapshot")).content
        assert look.startswith(f"{site}/ 'Shop'")
        assert "Hats" in look
        pressed = await call(tools, "click", ref=ref(look, "Press"))
        assert 'button "Pressed"' in pressed.content
        await call(tools, "select", ref=ref(look, "Size"), option="L")
        found = await call(tools, "type", ref=ref(look, "Search"), text="red hat", submit=True)
        assert found.error is None
        assert "{'q': ['red hat'], 'size': ['L']}" in found.content
        back = (await call(tools, "back")).content
        assert "'Shop'" in back
        await call(tools, "scroll", direction="down")
        assert await tools.page.evaluate("window.scrollY") > 100
        await call(tools, "press", key="Home")


async def test_tabs(site):
    async with browsing(site) as (_, tools):
        look = (await call(tools, "snapshot")).content
        opened = (await call(tools, "click", ref=ref(look, "Hats elsewhere"))).content
        with anyio.fail_after(10):  # the browser tells of a new tab when it has made it
            while "Two hats" not in (await call(tools, "snapshot")).content:
                pass
        assert f"Tabs: 0: {site}/, *1: {site}/hats" in (await call(tools, "snapshot")).content, opened
        assert "'Shop'" in (await call(tools, "tab", index=0)).content
        assert "Tabs" not in (await call(tools, "tab", index=1, close=True)).content
        assert (await call(tools, "tab", index=0, close=True)).error == "tool_error"
        assert (await call(tools, "tab", index=7)).error == "tool_error"


async def test_mistakes_are_told_to_the_model(site):
    async with browsing(site) as (_, tools):
        missing = await call(tools, "click", ref="e999")
        assert missing.error == "tool_error"
        elsewhere = await call(tools, "navigate", url="http://example.org/")
        assert elsewhere.error == "tool_error"
        assert "Allowed: 127.0.0.1" in elsewhere.content
        assert (await call(tools, "navigate", url="file:///etc/passwd")).error == "tool_error"


async def test_only_allowed_hosts_are_reached(site):
    async with browsing(site) as (_, tools):
        REQUESTS.clear()
        await call(tools, "navigate", url=f"{site}/img")
        away = await call(tools, "navigate", url=f"{site}/away")
        assert away.error == "tool_error"
        assert tools.page.url == "about:blank"
        assert "localhost/seen" not in REQUESTS
        await tools.page.goto(f"{site}/")
        fetched = await tools.page.evaluate(
            f"fetch('http://localhost:{urlsplit(site).port}/seen', {{mode: 'no-cors'}}).then(() => 'there', () => 'no')"
        )
        assert fetched == "no"


async def test_episodes_share_nothing_but_the_process(site):
    async with open_browser(BrowserConfig()) as browser:
        one, two = await browser.tools(site), await browser.tools(site)
        await one.page.evaluate("document.cookie = 'a=1'; localStorage.b = 2")
        assert await two.page.evaluate("[document.cookie, localStorage.b ?? null]") == ["", None]
        await one.close()
        await two.close()
        await two.close()


async def test_a_browser_that_dies_is_owned_and_heals(site):
    async with browsing(site) as (browser, tools):
        before = _browsers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await anyio.sleep(0.5)
        with pytest.raises(SandboxFailure, match="died"):
            await call(tools, "snapshot")
        healed = await browser.tools(site)
        assert "'Shop'" in (await call(healed, "snapshot")).content
        await healed.close()


async def test_a_crashed_page_is_owned(site):
    async with browsing(site) as (_, tools):
        session = await tools.context.new_cdp_session(tools.page)
        with anyio.move_on_after(5), suppress(Error):
            await session.send("Page.crash")
        with pytest.raises(SandboxFailure, match="died"):
            await call(tools, "snapshot")


async def test_a_missing_browser_is_a_sentence():
    with pytest.raises(UserError, match="Chromium does not start"):
        async with open_browser(BrowserConfig(executable="/no/chromium")):
            pass


async def test_a_first_page_that_does_not_load_is_a_sentence():
    async with open_browser(BrowserConfig(action_timeout_s=3)) as browser:
        with pytest.raises(UserError, match="first page does not load"):
            await browser.tools("http://127.0.0.1:9/")


def _browsers():
    """The browser processes that this process's driver started."""
    me = str(os.getpid())
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parents = {pid: parent for pid, parent, _ in rows}

    def below(pid):
        while pid in parents:
            if pid == me:
                return True
            pid = parents[pid]
        return False

    return [int(pid) for pid, _, args in rows if "chromium" in args and "node" not in args and below(pid)]
