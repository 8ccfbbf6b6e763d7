"""The browser process of a run: started when it is needed, started again when it has died, shared by all episodes.

Each episode has a context of its own (cookies, storage, tabs), with a proxy of its own that is its only way out.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import TaskGroup
from playwright.async_api import Browser, BrowserContext, Error, Playwright, async_playwright

from agent_rl.concurrency import Keeper, shielded
from agent_rl.errors import SandboxFailure, UserError
from agent_rl_tools.browser.config import BrowserConfig, PageConfig, ViewConfig
from agent_rl_tools.browser.determinism import prepare_pages, script
from agent_rl_tools.browser.policy import AllowList
from agent_rl_tools.browser.proxy import Proxy, Route, open_proxy
from agent_rl_tools.browser.tabs import Tabs
from agent_rl_tools.browser.tools import BrowserTools

_CLOSE_TIMEOUT_S = 10.0
_ANSWERS_WITHIN_S = 2.0  # a blank page that is alive
EXECUTABLES = ("chromium-headless-shell", "chromium", "google-chrome")  # the first one is twice as fast to open pages
# No name is resolved, nothing is sent by UDP, and what Chromium would like to tell its makers is not told.
_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-gpu",
    "--disable-quic",
    "--disable-smooth-scrolling",
    "--disable-sync",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",  # up to 155, and of the headless shell
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--no-first-run",
    "--no-pings",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
)
_NOWHERE = "http://127.0.0.1:9"  # the proxy of whatever belongs to no episode


@asynccontextmanager
async def open_browser(config: BrowserConfig) -> AsyncGenerator[SharedBrowser, None]:
    """A browser for as long as the block lasts. Raises `UserError` when Playwright or Chromium is not there."""
    escaped: Exception | None = None
    async with async_playwright() as playwright, anyio.create_task_group() as tasks:
        browser = SharedBrowser(playwright, config, tasks)
        try:
            await browser.process()
            yield browser
        except Exception as error:  # noqa: BLE001  # out of the task group as itself, not as a group
            escaped = error
        finally:
            async with shielded(_CLOSE_TIMEOUT_S):
                await browser.close()
            tasks.cancel_scope.cancel()
    if escaped is not None:
        raise escaped


@dataclass(frozen=True, slots=True)
class _Room:
    """A context with a blank page and its proxy, for one episode; `held` gives all of it back."""

    context: BrowserContext
    proxy: Proxy
    held: AsyncExitStack


class SharedBrowser:
    """The browser process, and the places in it. `tasks` ends with the browser."""

    def __init__(self, playwright: Playwright, config: BrowserConfig, tasks: TaskGroup) -> None:
        self.config = config
        self._playwright, self._tasks, self._keeper = playwright, tasks, Keeper(tasks)
        self._browser: Browser | None = None
        self._lock = anyio.Lock()
        self._places = anyio.Semaphore(config.max_contexts)  # first come, first served
        self._spares: deque[_Room] = deque()
        self._preparing = 0

    async def process(self) -> Browser:
        """The running browser. Raises `UserError` when it cannot be started at all."""
        async with self._lock:
            if self._browser is None or not self._browser.is_connected():
                config = self.config
                executable = config.executable or next(filter(None, map(shutil.which, EXECUTABLES)), None)
                try:
                    self._browser = await self._playwright.chromium.launch(
                        executable_path=executable,
                        chromium_sandbox=config.own_sandbox,
                        args=_FLAGS,
                        proxy={"server": _NOWHERE},
                        timeout=1e3 * config.launch_timeout_s,
                    )
                except Error as error:
                    raise UserError(
                        f"Chromium does not start ({str(error).splitlines()[0]}): install it, for example with "
                        "`apt install chromium-headless-shell` or `playwright install chromium`, or name it in "
                        "`executable`."
                    ) from error
            return self._browser

    async def tools(
        self,
        url: str,
        *,
        allowed_hosts: Sequence[str] | None = None,
        view: ViewConfig | None = None,
        page: PageConfig | None = None,
        routes: Mapping[str, Route] | None = None,
    ) -> BrowserTools:
        """The tools of one episode, which begins at `url`.

        `allowed_hosts` are entries of an `AllowList`; by default the host and port of `url` alone. `routes` are
        servers on this machine that stand in for hosts. Raises `SandboxFailure` when no place becomes free in time or
        the browser dies, `EnvironmentFailure` when the page does not load.
        """
        policy = AllowList.site_of(url) if allowed_hosts is None else AllowList.of(allowed_hosts)
        if not policy.allows_url(url):
            raise UserError(f"The first page, {url}, is not among the allowed hosts: {policy}.")
        tabs = await self._episode(policy, page or PageConfig(), routes or {})
        tools = BrowserTools(tabs, view or ViewConfig())
        try:
            await tools.begin(url)
        except BaseException:
            async with shielded(_CLOSE_TIMEOUT_S):
                await tools.close()
            raise
        return tools

    async def close(self) -> None:
        """End the process."""
        if self._browser is not None:
            await self._browser.close()
        await self._keeper.close(_CLOSE_TIMEOUT_S)

    # --- rooms ------------------------------------------------------------------------------------------------------

    async def _episode(self, policy: AllowList, page: PageConfig, routes: Mapping[str, Route]) -> Tabs:
        """A room in its turn, with all that has to be given back with it."""
        async with AsyncExitStack() as stack:
            await self._take_place()
            stack.callback(self._places.release)
            room = None if page.storage_state else await self._spare()
            if room is None:
                room = await self._room(page.storage_state)
            stack.push_async_callback(room.held.aclose)
            self._prepare_spares()
            room.proxy.policy, room.proxy.routes = policy, routes
            try:
                await prepare_pages(room.context, page)
            except Error as error:
                raise SandboxFailure(f"The browser gave no page: {error}", kind="died") from error
            return Tabs(room.context, room.proxy, self.config, page, stack.pop_all())

    async def _take_place(self) -> None:
        with anyio.move_on_after(self.config.wait_timeout_s):
            await self._places.acquire()
            return
        raise SandboxFailure(
            f"All {self.config.max_contexts} places in the browser were taken for {self.config.wait_timeout_s:g} s: "
            "raise max_contexts, or run fewer episodes at once.",
            kind="timeout",
        )

    async def _spare(self) -> _Room | None:
        """One that was made ready before, unless it has died since."""
        while self._spares:
            room = self._spares.popleft()
            with suppress(Error, IndexError), anyio.move_on_after(_ANSWERS_WITHIN_S):
                await room.context.pages[0].evaluate("0")
                return room
            self._tasks.start_soon(room.held.aclose)
        return None

    def _prepare_spares(self) -> None:
        for _ in range(self.config.spares - len(self._spares) - self._preparing):
            self._preparing += 1
            self._tasks.start_soon(self._add_spare)

    async def _add_spare(self) -> None:
        try:
            with suppress(SandboxFailure):  # whoever needs a room makes one, and is told why it cannot be had
                self._spares.append(await self._room(None))
        finally:
            self._preparing -= 1

    async def _room(self, storage_state: Path | None) -> _Room:
        async with AsyncExitStack() as stack:
            proxy = await self._keeper.open(open_proxy(AllowList.of(())))
            stack.push_async_callback(proxy.close)
            try:
                with anyio.fail_after(self.config.launch_timeout_s, shield=True):  # half a context cannot be closed
                    context = await self._context(proxy.value, storage_state, stack)
            except (Error, TimeoutError) as error:
                raise SandboxFailure(f"The browser gave no page: {error}", kind="died") from error
            return _Room(context, proxy.value, stack.pop_all())

    async def _context(self, proxy: Proxy, storage_state: Path | None, held: AsyncExitStack) -> BrowserContext:
        """With a blank page; `held` closes it."""
        for attempt in (1, 2):  # that a browser has died may be told by its use alone
            browser = await self.process()
            try:
                with _or_died(browser):
                    context = await browser.new_context(
                        viewport={"width": self.config.width, "height": self.config.height},
                        proxy={"server": f"http://127.0.0.1:{proxy.port}"},
                        service_workers="block",
                        accept_downloads=False,
                        storage_state=storage_state,
                    )
                    held.push_async_callback(_close, context)
                    await context.add_init_script(script("page.js"))
                    await context.new_page()
                    return context
            except Error:
                if attempt == 2 or browser.is_connected():
                    raise
        raise AssertionError("one of the attempts returned or raised")


@contextmanager
def _or_died(browser: Browser) -> Generator[None]:
    """Raises `Error` when the browser dies meanwhile, since Playwright never answers what was under way then."""
    with anyio.CancelScope() as scope:

        def cancel(_: Browser) -> None:
            scope.cancel()

        browser.on("disconnected", cancel)
        try:
            yield
        finally:
            browser.remove_listener("disconnected", cancel)
    if scope.cancelled_caught:
        raise Error("the browser died")


async def _close(context: BrowserContext) -> None:
    async with shielded(_CLOSE_TIMEOUT_S):
        with suppress(Error):  # the browser is gone, and the context with it
            await context.close()
