"""`browser_*`: a page of a real Chromium, seen as its accessibility tree and acted on by the names of its elements.

One browser process serves all episodes of a run and is started again when it dies; each episode has a context of its
own (cookies, storage, tabs) that reaches only the hosts it is allowed. An action that a page does not take is told to
the model; a page or a browser that dies is a failure of the sandbox's, and the episode is tried again.

    browser = await share("browser", lambda: open_browser(BrowserConfig()))
    self.toolsets = (await browser.tools("http://shop.test/", allowed_hosts=("shop.test",)),)
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import anyio
from pydantic import Field

from agent_rl import ToolError, Toolset, tool
from agent_rl.concurrency import shielded
from agent_rl.config import Config
from agent_rl.errors import SandboxFailure, UserError

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Locator, Page, Playwright, Route

_FLAGS = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")
_CLOSE_TIMEOUT_S = 10.0


class BrowserConfig(Config):
    """How the browser is started."""

    executable: str = Field(default="", description="Path of Chromium; none: the system's, else Playwright's own.")
    width: int = Field(default=1280, ge=200, description="Width of the page in pixels.")
    height: int = Field(default=800, ge=200, description="Height of the page in pixels.")
    action_timeout_s: float = Field(default=10.0, gt=0, description="Deadline of one action on a page.")
    launch_timeout_s: float = Field(default=60.0, gt=0, description="Deadline for starting the browser.")
    own_sandbox: bool = Field(
        default=False, description="Use Chromium's own sandbox for its processes; it needs another user than root."
    )


@asynccontextmanager
async def open_browser(config: BrowserConfig) -> AsyncGenerator[SharedBrowser, None]:
    """A browser for as long as the block lasts. Raises `UserError` when Playwright or Chromium is not there."""
    try:
        from playwright.async_api import async_playwright
    except ImportError as error:
        raise UserError("Browser tools need Playwright: pip install 'agent-rl[browser]'.") from error
    async with async_playwright() as playwright:
        browser = SharedBrowser(playwright, config)
        try:
            await browser.process()
            yield browser
        finally:
            async with shielded(_CLOSE_TIMEOUT_S):
                await browser.close()


class SharedBrowser:
    """The browser process, started again when it has died."""

    def __init__(self, playwright: Playwright, config: BrowserConfig) -> None:
        self._playwright, self._config = playwright, config
        self._browser: Browser | None = None
        self._lock = anyio.Lock()

    async def process(self) -> Browser:
        """The running browser. Raises `UserError` when it cannot be started at all."""
        from playwright.async_api import Error

        async with self._lock:
            if self._browser is None or not self._browser.is_connected():
                config = self._config
                executable = config.executable or shutil.which("chromium") or shutil.which("google-chrome")
                try:
                    self._browser = await self._playwright.chromium.launch(
                        executable_path=executable,
                        chromium_sandbox=config.own_sandbox,
                        args=_FLAGS,
                        timeout=1e3 * config.launch_timeout_s,
                    )
                except Error as error:
                    raise UserError(
                        f"Chromium does not start ({str(error).splitlines()[0]}): install it, for example with "
                        "`apt install chromium` or `playwright install chromium`, or name it in `executable`."
                    ) from error
            return self._browser

    async def tools(self, url: str, *, allowed_hosts: Sequence[str] | None = None) -> BrowserTools:
        """The tools of one episode, which begins at `url`. `allowed_hosts`: by default that of `url` alone.

        A host stands for itself with any port, `*.example.org` for all below example.org.
        """
        hosts = tuple(allowed_hosts if allowed_hosts is not None else (urlsplit(url).hostname or "",))
        browser = await self.process()
        size = {"width": self._config.width, "height": self._config.height}
        try:
            context = await browser.new_context(viewport=size, service_workers="block", accept_downloads=False)  # pyright: ignore[reportArgumentType]  # a plain dictionary
        except Exception as error:
            raise SandboxFailure(f"The browser gave no context: {error}", kind="died") from error
        tools = BrowserTools(context, hosts, self._config.action_timeout_s)
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


class BrowserTools(Toolset):
    """The tabs of one episode. Every action answers with what the page looks like then."""

    def __init__(self, context: BrowserContext, allowed_hosts: tuple[str, ...], timeout_s: float) -> None:
        self.context = context
        self._allowed_hosts = allowed_hosts
        self._timeout_s = timeout_s
        self._pages: list[Page] = []
        self._page: Page | None = None
        self._crashed = False
        context.set_default_timeout(1e3 * timeout_s)
        context.on("page", self._opened)

    @property
    def page(self) -> Page:
        """The tab that is acted on."""
        assert self._page is not None, "begin() opens it"
        return self._page

    async def begin(self, url: str) -> None:
        """Open the first page. Raises `UserError` when it does not load, `SandboxFailure` when the browser dies."""
        await self.context.route("**/*", self._filter)
        await self.context.route_web_socket("**/*", lambda socket: None)  # answered by nobody
        await self.context.new_page()
        try:
            await self.browser_navigate.function(url)
        except ToolError as error:
            raise UserError(f"The first page does not load: {error}") from error

    # --- tools ---

    @tool(timeout_s=120.0)
    async def browser_navigate(self, url: str) -> str:
        """Open an address in the current tab.

        Args:
            url: The address.
        """
        if not self._allows(url):
            raise ToolError(f"{url} may not be opened. Allowed: {', '.join(self._allowed_hosts)}.")
        return await self._act(lambda: self.page.goto(url, wait_until="load"))

    @tool(timeout_s=120.0, effects="read_only")
    async def browser_snapshot(self) -> str:
        """Show the page: its address, its title and its elements, with a ref for each that can be acted on."""
        return await self._look()

    @tool(timeout_s=120.0)
    async def browser_click(self, ref: str) -> str:
        """Click an element.

        Args:
            ref: The element's ref in the last snapshot, such as e5.
        """
        return await self._act(lambda: self._element(ref).click())

    @tool(timeout_s=120.0)
    async def browser_type(self, ref: str, text: str, submit: bool = False) -> str:
        """Replace the text of a field.

        Args:
            ref: The field's ref in the last snapshot.
            text: The new text.
            submit: Whether to press Enter afterwards.
        """

        async def fill() -> None:
            await self._element(ref).fill(text)
            if submit:
                await self._element(ref).press("Enter")

        return await self._act(fill)

    @tool(timeout_s=120.0)
    async def browser_select(self, ref: str, option: str) -> str:
        """Choose an option of a list.

        Args:
            ref: The list's ref in the last snapshot.
            option: The option's text.
        """
        return await self._act(lambda: self._element(ref).select_option(label=option))

    @tool(timeout_s=120.0)
    async def browser_press(self, key: str) -> str:
        """Press a key or a combination, such as Enter, Escape, ArrowDown or Control+a.

        Args:
            key: The key.
        """
        return await self._act(lambda: self.page.keyboard.press(key))

    @tool(timeout_s=120.0)
    async def browser_scroll(self, direction: Literal["up", "down"]) -> str:
        """Scroll by most of a screen.

        Args:
            direction: Where to.
        """
        sign = 1 if direction == "down" else -1
        return await self._act(lambda: self.page.evaluate(f"window.scrollBy(0, {sign} * 0.8 * window.innerHeight)"))

    @tool(timeout_s=120.0)
    async def browser_back(self) -> str:
        """Go back to the page before."""
        return await self._act(lambda: self.page.go_back(wait_until="load"))

    @tool(timeout_s=120.0)
    async def browser_tab(self, index: int, close: bool = False) -> str:
        """Go to another tab, or close one.

        Args:
            index: The tab's number in the last snapshot.
            close: Whether to close it instead.
        """
        if not 0 <= index < len(self._pages):
            raise ToolError(f"There is no tab {index}.")
        if close and len(self._pages) == 1:
            raise ToolError("The last tab cannot be closed.")

        async def go() -> None:
            if close:
                await self._pages[index].close()
            else:
                self._page = self._pages[index]
                await self._page.bring_to_front()

        return await self._act(go)

    async def close(self) -> None:
        """Close the tabs and forget the cookies."""
        from playwright.async_api import Error

        try:
            await self.context.close()
        except Error:  # the browser is gone, and the context with it
            return

    # --- how ---

    def _element(self, ref: str) -> Locator:
        return self.page.locator(f"aria-ref={ref.strip('[]').removeprefix('ref=')}")

    async def _act(self, action: Callable[[], Awaitable[Any]]) -> str:
        """Do it, wait until the page has settled, and look."""
        await self._guarded(action)
        await self._settle()
        if not self._allows(self.page.url):  # redirects are not seen by the filter
            await self._guarded(lambda: self.page.goto("about:blank"))
            raise ToolError(
                f"That led to an address that may not be opened. Allowed: {', '.join(self._allowed_hosts)}."
            )
        return await self._look()

    async def _guarded(self, action: Callable[[], Awaitable[Any]]) -> Any:
        from playwright.async_api import Error, TimeoutError

        try:
            return await action()
        except TimeoutError as error:
            self._check_alive(error)
            raise ToolError(f"Nothing happened for {self._timeout_s:g} s: {_reason(error)}") from error
        except Error as error:
            self._check_alive(error)
            raise ToolError(_reason(error)) from error

    def _check_alive(self, error: Exception) -> None:
        browser = self.context.browser
        if self._crashed or browser is None or not browser.is_connected() or not self._pages:
            raise SandboxFailure("The page or its browser has died.", kind="died") from error

    async def _settle(self) -> None:
        """Wait for a navigation that the action set off; a page that never comes to rest is looked at as it is."""
        from playwright.async_api import Error

        try:
            await self.page.wait_for_load_state("load", timeout=1e3 * self._timeout_s)
        except Error as error:
            self._check_alive(error)

    async def _look(self) -> str:
        tree = await self._guarded(lambda: self.page.aria_snapshot(mode="ai"))
        title = await self._guarded(self.page.title)
        lines = [f"{self.page.url} {title!r}"]
        if len(self._pages) > 1:
            tabs = (f"{'*' if page is self._page else ''}{i}: {page.url}" for i, page in enumerate(self._pages))
            lines.append(f"Tabs: {', '.join(tabs)}")
        return "\n".join([*lines, tree])

    def _opened(self, page: Page) -> None:
        self._pages.append(page)
        self._page = page
        page.on("close", lambda _: self._left(page))
        page.on("crash", lambda _: self._crash())
        page.on("dialog", lambda dialog: dialog.dismiss())

    def _left(self, page: Page) -> None:
        if page in self._pages:
            self._pages.remove(page)
        if page is self._page and self._pages:
            self._page = self._pages[-1]

    def _crash(self) -> None:
        self._crashed = True

    async def _filter(self, route: Route) -> None:
        if self._allows(route.request.url):
            await route.continue_()
        else:
            await route.abort("blockedbyclient")

    def _allows(self, url: str) -> bool:
        parts = urlsplit(url)
        if parts.scheme in ("about", "data", "blob"):
            return True
        host = parts.hostname or ""
        return parts.scheme in ("http", "https") and any(
            host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]))
            for allowed in self._allowed_hosts
        )


def _reason(error: Exception) -> str:
    """Playwright's first line, without the name of its method."""
    first = str(error).splitlines()[0]
    return first.partition(": ")[2] or first
