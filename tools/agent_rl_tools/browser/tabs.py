"""The tabs of one episode: which is acted on, what happens in them unasked, and what becomes of pages that hang or die.

A page that does not answer in time has its tab closed, and the model is told; a page or a browser that dies is the
sandbox's failure, and the episode is tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

import anyio
from playwright.async_api import BrowserContext, Dialog, Download, Error, Frame, Page, Request, Response

from agent_rl.errors import SandboxFailure, ToolError
from agent_rl_tools.browser.config import BrowserConfig, PageConfig
from agent_rl_tools.browser.proxy import ANSWERED, Proxy
from agent_rl_tools.browser.view import Box, PageView, parse_ref, read_view

T = TypeVar("T")

_CALL = """([name, args]) => {
    const page = globalThis[Symbol.for("agent-rl page")];
    return page ? page[name](...args) : {url: location.href, title: document.title, rows: [], scroll: [0, 0, 0, 0]};
}"""
_MOST_NODES = 3000
_MOST_FRAMES = 8
_MOST_NOTES = 5
_LONGEST_NOTE = 300
_MOVES = 3  # times that a page may go elsewhere while it is looked at
_BLINK_S = 0.01


class Tabs:
    """The open pages, the last one in front."""

    def __init__(
        self,
        context: BrowserContext,
        proxy: Proxy,
        config: BrowserConfig,
        page_config: PageConfig,
        held: AsyncExitStack,
    ) -> None:
        self.context, self.proxy = context, proxy
        self.all: list[Page] = []
        self.notes: list[str] = []
        self._config, self._page_config, self._held = config, page_config, held
        self._current: Page | None = None
        self._crashed = False
        self._running: set[Request] = set()
        self._frames: list[Frame] = []
        for page in context.pages:
            self._adopt(page)
        context.set_default_timeout(1e3 * config.action_timeout_s)
        context.on("page", self._opened)
        context.on("request", lambda request: self._running.add(request))
        context.on("requestfinished", lambda request: self._running.discard(request))
        context.on("requestfailed", lambda request: self._running.discard(request))
        context.on("dialog", self._asked)

    @property
    def current(self) -> Page:
        """The tab that is acted on. Raises `SandboxFailure` when there is none left."""
        if self._current is None:
            raise SandboxFailure("The page or its browser has died.", kind="died")
        return self._current

    async def close(self) -> None:
        """Close the tabs, forget the cookies, give back the place. Idempotent."""
        await self._held.aclose()

    # --- what is done to them ---------------------------------------------------------------------------------------

    async def go(self, url: str) -> None:
        """Open an address in the current tab. Raises `ToolError` when nobody answers, or it leads where none may go."""
        timeout_s = self._config.load_timeout_s
        answers: list[Response | None] = []

        async def navigate() -> None:
            answers.append(await self.current.goto(url, wait_until="commit", timeout=1e3 * timeout_s))

        await self.act(navigate, extra_s=timeout_s)
        if answers[0] is not None and (refusal := answers[0].headers.get(ANSWERED)):
            raise ToolError(f"{refusal}.")

    async def show(self, index: int) -> None:
        """Bring a tab to the front."""
        self._current = self.all[index]
        await self.guarded(self.current.bring_to_front)

    async def shut(self, index: int) -> None:
        """Close a tab."""
        await self.guarded(self.all[index].close)

    async def act(self, action: Callable[[], Awaitable[Any]], *, extra_s: float = 0.0) -> None:
        """Do something to the current page, and wait until what it set off is done, or has taken long enough."""
        self._running.clear()
        await self.guarded(action, extra_s=extra_s)
        await self._settle()

    async def call(self, name: str, *args: Any, frame: Frame | None = None) -> Any:
        """Call a function of `page.js`, in the page or in one of its frames."""
        target = frame or self.current
        return await self.guarded(lambda: target.evaluate(_CALL, [name, args]))

    async def element(self, name: str, ref: str, *args: Any) -> tuple[Mapping[str, Any], Box]:
        """Call a function of `page.js` on an element; its answer, and where the element's frame is.

        Raises `ToolError` for what cannot be done with it.
        """
        frame_number, element = parse_ref(ref)
        frame, place = await self._frame(frame_number, ref)
        found = await self.call(name, element, *args, frame=frame)
        if "error" in found:
            raise ToolError(f"{ref} {found['error']}.")
        return found, place

    async def point(self, ref: str) -> tuple[float, float]:
        """Where to click an element, which is scrolled into view. Raises `ToolError` when it cannot be clicked."""
        found, (left, top, _, _) = await self.element("locate", ref)
        return found["x"] + left, found["y"] + top

    async def look(self) -> PageView:
        """The current page as it is now."""
        looked = await self._look()
        frames: list[tuple[str, Box, Mapping[str, Any]]] = []
        for frame in self.current.frames[1 : 1 + _MOST_FRAMES]:
            with suppress(ToolError):  # it may have gone meanwhile
                place = await self._place(frame)
                if place[2] and place[3]:
                    frames.append((f"f{self._number(frame)}", place, await self.call("look", _MOST_NODES, frame=frame)))
        return read_view(looked, frames)

    def take_notes(self) -> list[str]:
        """What happened unasked since this was last called."""
        notes, self.notes = self.notes, []
        more = len(notes) - _MOST_NOTES
        return [*notes[:_MOST_NOTES], f"and {more} more such messages"] if more > 0 else notes

    async def guarded(self, action: Callable[[], Awaitable[T]], *, extra_s: float = 0.0) -> T:
        """What `action` gives. Raises `ToolError` for what the page does not take, and `SandboxFailure` if it died."""
        try:
            with anyio.fail_after(self._config.action_timeout_s + extra_s):
                return await action()
        except Error as error:
            self._check_alive(error)
            raise ToolError(_reason(error)) from error
        except TimeoutError as error:
            self._check_alive(error)
            await self._replace()
            raise ToolError(
                f"The page did not answer for {self._config.action_timeout_s:g} s, so its tab was closed. "
                "A blank one is open instead."
            ) from error

    # --- how --------------------------------------------------------------------------------------------------------

    async def _look(self) -> Mapping[str, Any]:
        for _ in range(_MOVES):
            page = self.current
            try:
                return await self.call("look", _MOST_NODES)
            except ToolError:
                if page.is_closed():  # it hung
                    raise
            await self._loaded()  # it went elsewhere while it was looked at
        return await self.call("look", _MOST_NODES)

    def _check_alive(self, error: Exception) -> None:
        browser = self.context.browser
        crashed = self._crashed or "crashed" in str(error)
        if crashed or browser is None or not browser.is_connected() or not self.all:
            raise SandboxFailure("The page or its browser has died.", kind="died") from error

    async def _replace(self) -> None:
        """A blank tab for one that hangs. Raises `SandboxFailure` when the browser does not even do that."""
        hung = self.current
        try:
            with anyio.fail_after(self._config.action_timeout_s):
                await self.context.new_page()
                await hung.close()
        except (Error, TimeoutError) as error:
            raise SandboxFailure("The browser does not answer any more.", kind="hung") from error

    async def _settle(self) -> None:
        """Let what an action set off happen: navigations until they are loaded, requests for a while."""
        page = self.current
        try:
            await self.call("settle")
            if self._page_config.clock == "stepped":
                await self.guarded(lambda: self.context.clock.run_for(int(1e3 * self._page_config.step_s)))
        except ToolError:
            if page.is_closed():  # it hung
                raise
            # else it went elsewhere meanwhile, which is what is waited for
        now = anyio.current_time()
        quiet, loaded = now + self._config.quiet_s, now + self._config.load_timeout_s
        await anyio.sleep(_BLINK_S)
        while self._running and anyio.current_time() < (loaded if self._leaving() else quiet):  # noqa: ASYNC110
            await anyio.sleep(_BLINK_S)
        await self._loaded()

    def _leaving(self) -> bool:
        """Whether the page in front is about to be another one."""
        return any(_opens_page(request, self.current) for request in self._running)

    async def _loaded(self) -> None:
        """Wait for the page to load; one that never does is looked at as it is."""
        try:
            await self.current.wait_for_load_state("load", timeout=1e3 * self._config.load_timeout_s)
        except Error as error:
            self._check_alive(error)
            self._note("The page is still loading.")

    async def _frame(self, number: int, ref: str) -> tuple[Frame | None, Box]:
        if number == 0:
            return None, (0, 0, 0, 0)
        if number > len(self._frames) or self._frames[number - 1] not in self.current.frames:
            raise ToolError(f"{ref} is not on the page any more.")
        frame = self._frames[number - 1]
        await self.guarded(lambda: _bring(frame))
        return frame, await self._place(frame)

    def _number(self, frame: Frame) -> int:
        if frame not in self._frames:
            self._frames.append(frame)
        return self._frames.index(frame) + 1

    async def _place(self, frame: Frame) -> Box:
        async def box() -> Box:
            found = await (await frame.frame_element()).bounding_box()
            if found is None:
                return (0, 0, 0, 0)
            return round(found["x"]), round(found["y"]), round(found["width"]), round(found["height"])

        return await self.guarded(box)

    # --- what happens unasked ---------------------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        if len(self.notes) < 1000 and text not in self.notes:
            self.notes.append(text if len(text) <= _LONGEST_NOTE else f"{text[:_LONGEST_NOTE]}...")

    async def _opened(self, page: Page) -> None:
        if len(self.all) >= self._config.max_tabs:
            self._note(f"A new tab was closed: there may be {self._config.max_tabs}.")
            with suppress(Error):
                await page.close()
            return
        self._adopt(page)

    def _adopt(self, page: Page) -> None:
        page.on("close", self._closed)
        page.on("crash", self._died)
        page.on("download", self._downloaded)
        self.all.append(page)
        self._current = page

    def _closed(self, page: Page) -> None:
        if page in self.all:
            self.all.remove(page)
        if page is self._current:
            self._current = self.all[-1] if self.all else None

    def _died(self, page: Page) -> None:
        self._crashed = True

    async def _asked(self, dialog: Dialog) -> None:
        accepted = dialog.type in ("alert", "beforeunload") or self._page_config.dialogs == "accept"
        if dialog.type != "beforeunload":
            done = "" if dialog.type == "alert" else " It was accepted." if accepted else " It was dismissed."
            self._note(f"The page showed a dialog ({dialog.type}): {dialog.message!r}.{done}")
        with suppress(Error):  # its page is gone
            await (dialog.accept(dialog.default_value) if accepted else dialog.dismiss())

    def _downloaded(self, download: Download) -> None:
        self._note(f"The download of {download.suggested_filename!r} was refused.")


def _opens_page(request: Request, page: Page) -> bool:
    try:
        return request.is_navigation_request() and request.frame == page.main_frame
    except Error:  # a tab that is not there yet
        return True


async def _bring(frame: Frame) -> None:
    await (await frame.frame_element()).scroll_into_view_if_needed()


def _reason(error: Exception) -> str:
    """Playwright's first line, without the name of its method."""
    first = str(error).splitlines()[0]
    return first.partition(": ")[2] or first
