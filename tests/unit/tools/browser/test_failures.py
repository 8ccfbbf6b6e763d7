"""What goes wrong in a browser: told to the model where the page is to blame, a failure with an owner where it died."""

import os
import signal
import time
from contextlib import asynccontextmanager, suppress

import anyio
import psutil
import pytest
from playwright.async_api import Error

from agent_rl.concurrency import collect
from agent_rl.errors import SandboxFailure, UserError
from agent_rl_tools.browser import BrowserConfig, PageConfig, open_browser

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # nearly each starts a browser of its own


@pytest.fixture
async def own_browser(chromium, request):
    """One that a test may kill, with options by `parametrize(..., indirect=True)`."""
    others = _browsers()
    options = {"action_timeout_s": 2, "load_timeout_s": 2, **getattr(request, "param", {})}
    async with open_browser(BrowserConfig(**options)) as opened:
        opened.pids = lambda: _browsers() - others
        yield opened
        began = time.monotonic()
    assert time.monotonic() - began < 30, "a page that was being made when the browser died is not waited for"


@pytest.fixture
def impatient(own_browser, browsing):
    @asynccontextmanager
    async def episode(url, **options):
        async with browsing(url, shared=own_browser, **options) as tools:
            yield tools

    return episode


# --- the page's doing: the episode goes on --------------------------------------------------------------------------


async def test_an_endless_loop_costs_a_page_its_tab(site, impatient, call, ref_of):
    site.pages(loop="<button onclick='for (;;);'>Loop</button>")
    async with impatient(f"{site.url}/loop") as tools:
        look = (await call(tools, "snapshot")).content
        hung = await call(tools, "click", ref=ref_of(look, "Loop"))
        assert hung.error == "tool_error"
        assert "did not answer for 2 s, so its tab was closed" in hung.content
        assert "about:blank" in (await call(tools, "snapshot")).content
        assert "'Shop'" in (await call(tools, "navigate", url=site.url)).content


async def test_a_page_that_never_answers_or_never_ends_loading(site, impatient, call):
    site.pages(slow="<title>Slow</title><p>There</p><img src=/never>")
    async with impatient(site.url) as tools:
        never = await call(tools, "navigate", url=f"{site.url}/never")
        assert never.error == "tool_error"
        slow = await call(tools, "navigate", url=f"{site.url}/slow")
        assert slow.error is None
        assert "There" in slow.content
        assert "[The page is still loading.]" in slow.content
        assert "'Shop'" in (await call(tools, "navigate", url=site.url)).content


async def test_dialogs_are_answered_and_told(site, browsing, call, ref_of):
    site.pages(
        ask="""<button onclick="alert('Hello')">Greet</button><button onclick="this.textContent =
        [confirm('Sure?'), prompt('Name?', 'Ann')]">Ask</button>
        <button onclick="for (let i = 0; i < 8; i++) alert('Flood ' + i)">Flood</button>"""
    )
    async with browsing(f"{site.url}/ask") as tools:
        look = (await call(tools, "snapshot")).content
        assert (
            "[The page showed a dialog (alert): 'Hello'.]"
            in (await call(tools, "click", ref=ref_of(look, "Greet"))).content
        )
        asked = (await call(tools, "click", ref=ref_of(look, "Ask"))).content
        assert 'button "true,Ann"' in asked
        assert "(confirm): 'Sure?'. It was accepted.]" in asked
        flood = (await call(tools, "click", ref=ref_of(look, "Flood"))).content
        assert flood.count("(alert)") == 5
        assert "[and 3 more such messages]" in flood
    async with browsing(f"{site.url}/ask", page=PageConfig(dialogs="dismiss")) as tools:
        look = (await call(tools, "snapshot")).content
        assert 'button "false,"' in (await call(tools, "click", ref=ref_of(look, "Ask"))).content


async def test_downloads_are_refused_and_told(site, browsing, call, ref_of):
    site.pages(load="<a href=/file>Get</a>")
    async with browsing(f"{site.url}/load") as tools:
        look = (await call(tools, "snapshot")).content
        refused = (await call(tools, "click", ref=ref_of(look, "Get"))).content
        assert "[The download of 'secret.bin' was refused.]" in refused + (await call(tools, "snapshot")).content


@pytest.mark.parametrize("own_browser", [{"max_tabs": 3}], indirect=True)
async def test_a_page_may_only_open_so_many_tabs(site, impatient, call, ref_of):
    site.pages(many="<button onclick='for (let i = 0; i < 6; i++) window.open(\"/hats?\" + i)'>Open</button>")
    async with impatient(f"{site.url}/many") as tools:
        look = (await call(tools, "snapshot")).content
        seen = (await call(tools, "click", ref=ref_of(look, "Open"))).content
        with anyio.move_on_after(5):
            while "A new tab was closed: there may be 3." not in seen:
                seen = (await call(tools, "snapshot")).content
        assert "A new tab was closed: there may be 3." in seen
        assert len(tools.tabs.all) == 3


async def test_a_flooded_console_and_a_huge_page_slow_nothing_down(site, browsing, call, ref_of):
    site.pages(
        flood="""<button onclick="for (let i = 0; i < 5000; i++) console.log('x'.repeat(100), i)">Log</button>
        <script>for (let i = 0; i < 5000; i++) document.body.append(Object.assign(document.createElement("a"),
            {href: "/" + i, textContent: "link " + i}));</script>"""
    )
    async with browsing(f"{site.url}/flood") as tools:
        look = (await call(tools, "snapshot")).content
        assert len(look) < 13_000
        assert (await call(tools, "click", ref=ref_of(look, "Log"))).error is None


# --- deaths: failures of the sandbox's, after which the next episode works ------------------------------------------


async def test_a_browser_that_is_killed_is_owned_and_heals(site, impatient, own_browser, browsing, call):
    async with impatient(site.url) as tools:
        before = own_browser.pids()
        assert before
        for pid in before:
            with suppress(ProcessLookupError):  # it went with another
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(SandboxFailure, match="died"):
            await call(tools, "click_at", x=1, y=1)
        async with browsing(site.url, shared=own_browser) as healed:
            assert "'Shop'" in (await call(healed, "snapshot")).content
        assert not before & own_browser.pids()


async def test_a_crashed_page_is_owned(site, impatient, call):
    async with impatient(site.url) as tools:
        session = await tools.context.new_cdp_session(tools.page)
        with anyio.move_on_after(5), suppress(Error):
            await session.send("Page.crash")
        with pytest.raises(SandboxFailure, match="died"):
            await call(tools, "snapshot")
    async with impatient(site.url) as tools:
        assert "'Shop'" in (await call(tools, "snapshot")).content


async def test_a_closed_context_is_owned(site, impatient, call):
    async with impatient(site.url) as tools:
        await tools.context.close()
        with pytest.raises(SandboxFailure, match="died"):
            await call(tools, "snapshot")


async def test_a_missing_browser_is_a_sentence(anyio_backend):
    with pytest.raises(UserError, match="Chromium does not start"):
        async with open_browser(BrowserConfig(executable="/no/chromium")):
            pass


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_browser", [{"max_contexts": 2, "wait_timeout_s": 0.5, "spares": 0}], indirect=True)
async def test_places_are_given_in_turn_and_the_wait_has_an_end(site, own_browser):
    one, two = await own_browser.tools(site.url), await own_browser.tools(site.url)
    began = time.perf_counter()
    with pytest.raises(SandboxFailure, match=r"All 2 places in the browser were taken for 0\.5 s") as caught:
        await own_browser.tools(site.url)
    assert caught.value.kind == "timeout"
    assert time.perf_counter() - began >= 0.5
    await one.close()
    await one.close()  # gives back one place, not two
    three = await own_browser.tools(site.url)
    with pytest.raises(SandboxFailure, match="places"):
        await own_browser.tools(site.url)
    await collect([two.close, three.close])


@pytest.mark.parametrize("own_browser", [{"max_contexts": 1, "spares": 0}], indirect=True)
async def test_a_cancelled_episode_leaves_its_place(site, own_browser):
    for delay_s in (0.0, 0.02, 0.1, 0.3):
        with anyio.move_on_after(delay_s):
            tools = await own_browser.tools(site.url)
            await tools.close()
    with anyio.fail_after(20):
        tools = await own_browser.tools(site.url)
    browser = await own_browser.process()
    assert len(browser.contexts) == 1
    await tools.close()


async def test_episodes_share_nothing_but_the_process(site, browsing):
    async with browsing(site.url) as one, browsing(site.url) as two:
        await one.page.evaluate("document.cookie = 'a=1'; localStorage.b = 2")
        assert await two.page.evaluate("[document.cookie, localStorage.b ?? null]") == ["", None]


def _browsers():
    """Processes of browsers that this one started."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "--headless" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found
