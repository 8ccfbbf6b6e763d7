"""The same time and the same chance for every episode: a clock that moves when it is told to, seeded randomness."""

from __future__ import annotations

import datetime
import functools
from importlib.resources import files
from typing import TYPE_CHECKING

from agent_rl_tools.browser.config import PageConfig

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext

_TIME = datetime.datetime(2024, 6, 3, 10, tzinfo=datetime.UTC)  # a Monday


@functools.cache
def script(name: str) -> str:
    """A script of this package."""
    return files("agent_rl_tools.browser").joinpath(name).read_text()


async def prepare_pages(context: BrowserContext, config: PageConfig) -> None:
    """Before the first address is opened."""
    if config.clock == "stepped":
        # It runs until it is paused, which is at a time that a slow machine has not reached by then.
        await context.clock.install(time=_TIME - datetime.timedelta(hours=1))
        await context.clock.pause_at(_TIME)
    if config.random_seed is not None:
        await context.add_init_script(script("random.js").replace("%SEED%", str(config.random_seed % 2**32)))
