"""The actions of one episode as tools. Every action answers with what the page looks like then."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio

from agent_rl import ToolError, Toolset, tool
from agent_rl.errors import EnvironmentFailure
from agent_rl_tools.browser.config import ViewConfig
from agent_rl_tools.browser.marks import draw_marks
from agent_rl_tools.browser.view import PageView, render

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

    from agent_rl_tools.browser.tabs import Tabs

_TIMEOUT_S = 120.0  # of a tool: its parts have deadlines of their own, which are told to the model
_TYPED_CHARS = 300  # more text is put in at once, without keys
_DRAG_STEPS = 8


class BrowserTools(Toolset):
    """The tabs of one episode. `view` is the page as it was last looked at; `submitted` is what `browser_stop` got."""

    def __init__(self, tabs: Tabs, config: ViewConfig) -> None:
        self.tabs = tabs
        self.view = PageView("about:blank", "", (), (0, 0, 0, 0))
        self.submitted: str | None = None
        self._config = config
        self._id, self._pictures = uuid.uuid4().hex[:8], 0

    @property
    def context(self) -> BrowserContext:
        """Playwright's context, for checkers."""
        return self.tabs.context

    @property
    def page(self) -> Page:
        """Playwright's page in front, for checkers."""
        return self.tabs.current

    async def begin(self, url: str) -> None:
        """Open the first page. Raises `EnvironmentFailure` when it does not load, `SandboxFailure` when it dies."""
        try:
            await self.tabs.go(url)
        except ToolError as error:
            raise EnvironmentFailure(f"The first page, {url}, does not load: {error}") from error

    # --- tools ------------------------------------------------------------------------------------------------------

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_navigate(self, url: str) -> str:
        """Open an address in the current tab.

        Args:
            url: The address.
        """
        if not self.tabs.proxy.policy.allows_url(url):
            raise ToolError(f"{url} may not be opened. Allowed: {self.tabs.proxy.policy}.")
        await self.tabs.go(url)
        return await self.observe()

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_snapshot(self) -> str:
        """Show the page: its address, its title and its elements, with a ref for each that can be acted on."""
        return await self.observe()

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_click(self, ref: str) -> str:
        """Click an element.

        Args:
            ref: The element's ref, such as e5.
        """
        x, y = await self.tabs.point(ref)
        return await self._act(lambda: self.page.mouse.click(x, y))

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_click_at(self, x: float, y: float) -> str:
        """Click a place.

        Args:
            x: Pixels from the left edge of the page's visible part.
            y: Pixels from its upper edge.
        """
        return await self._act(lambda: self.page.mouse.click(x, y))

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_hover(self, ref: str) -> str:
        """Move the pointer over an element.

        Args:
            ref: The element's ref.
        """
        x, y = await self.tabs.point(ref)
        return await self._act(lambda: self.page.mouse.move(x, y))

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_drag(self, ref: str, to_ref: str = "", dx: float = 0, dy: float = 0) -> str:
        """Drag an element onto another one, or by a distance.

        Args:
            ref: The ref of the element to drag.
            to_ref: The ref of the element to drop it on.
            dx: Pixels to the right of there.
            dy: Pixels down from there.
        """
        from_x, from_y = await self.tabs.point(ref)
        x, y = await self.tabs.point(to_ref) if to_ref else (from_x, from_y)
        return await self._act(lambda: self._drag(from_x, from_y, x + dx, y + dy))

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_type(self, ref: str, text: str, submit: bool = False) -> str:
        """Replace the text of a field.

        Args:
            ref: The field's ref.
            text: The new text.
            submit: Whether to press Enter afterwards.
        """
        ready, _ = await self.tabs.element("edit", ref, text)

        async def enter() -> None:
            keyboard = self.page.keyboard
            if ready["typed"]:
                if not text and not ready["empty"]:
                    await keyboard.press("Delete")
                await (keyboard.type(text) if len(text) <= _TYPED_CHARS else keyboard.insert_text(text))
            if submit:
                await keyboard.press("Enter")

        return await self._act(enter)

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_select(self, ref: str, option: str) -> str:
        """Choose an option of a list; in one that takes several, also to take it back.

        Args:
            ref: The list's ref.
            option: The option's text.
        """
        return await self._act(lambda: self.tabs.element("choose", ref, option))

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_press(self, key: str) -> str:
        """Press a key or a combination, such as Enter, Escape, ArrowDown or Control+a.

        Args:
            key: The key.
        """
        return await self._act(lambda: self.page.keyboard.press(key))

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_scroll(self, direction: Literal["up", "down"], ref: str = "") -> str:
        """Scroll by most of a screen.

        Args:
            direction: Where to.
            ref: An element inside of what is to be scrolled, where it is not the page.
        """
        x, y = await self.tabs.point(ref) if ref else (0.0, 0.0)
        return await self._act(lambda: self.tabs.call("scroll", 1 if direction == "down" else -1, bool(ref), x, y))

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_back(self) -> str:
        """Go back to the page before."""
        return await self._act(lambda: self.page.go_back(wait_until="commit"))

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_tab(self, index: int, close: bool = False) -> str:
        """Go to another tab, or close one.

        Args:
            index: The tab's number in the last snapshot.
            close: Whether to close it instead.
        """
        if not 0 <= index < len(self.tabs.all):
            raise ToolError(f"There is no tab {index}.")
        if close and len(self.tabs.all) == 1:
            raise ToolError("The last tab cannot be closed.")
        await (self.tabs.shut(index) if close else self.tabs.show(index))
        return await self.observe()

    @tool(timeout_s=_TIMEOUT_S)
    async def browser_stop(self, answer: str = "") -> str:
        """End the task.

        Args:
            answer: What was asked for, if anything was.
        """
        self.submitted = answer
        return "Done."

    async def close(self) -> None:
        """Close the tabs and forget the cookies."""
        await self.tabs.close()

    # --- what the model sees ----------------------------------------------------------------------------------------

    async def observe(self) -> str:
        """The page in front, as text; keeps it in `view`."""
        self.view = await self.tabs.look()
        config = self._config
        page = render(self.view, config.observation, viewport_only=config.viewport_only, max_chars=config.max_chars)
        if config.screenshots is not None:
            await self._keep_picture(config.screenshots)
        notes = [f"[{note}]" for note in self.tabs.take_notes()]
        return "\n".join([*(self._header() if config.header else []), *notes, page])

    async def screenshot(self, *, marks: bool = True) -> bytes:
        """The visible part of the page as PNG; `marks` draws the elements' refs on it (Set-of-Mark prompting,
        arXiv:2310.11441), as they were last looked at."""
        picture = await self.tabs.guarded(lambda: self.page.screenshot(caret="initial"))
        seen = [(node.ref, node.box) for node in self.view.elements() if self.view.sees(node)]
        return draw_marks(picture, seen) if marks else picture

    # --- how --------------------------------------------------------------------------------------------------------

    async def _act(self, action: Callable[[], Awaitable[Any]]) -> str:
        await self.tabs.act(action)
        return await self.observe()

    async def _drag(self, from_x: float, from_y: float, x: float, y: float) -> None:
        mouse = self.page.mouse
        await mouse.move(from_x, from_y)
        await mouse.down()
        await mouse.move(x, y, steps=_DRAG_STEPS)
        await mouse.up()

    def _header(self) -> list[str]:
        lines = [f"{self.view.url} {self.view.title!r}"]
        if len(self.tabs.all) > 1:
            front = self.tabs.current
            tabs = (f"{'*' if page is front else ''}{i}: {page.url}" for i, page in enumerate(self.tabs.all))
            lines.append(f"Tabs: {', '.join(tabs)}")
        return lines

    async def _keep_picture(self, folder: Path) -> None:
        self._pictures += 1
        await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
        await anyio.Path(folder / f"{self._id}-{self._pictures:03}.png").write_bytes(await self.screenshot())
