"""What an episode in the browser costs, beside Playwright alone, on a MiniWoB++ page served on this machine.

`begin`: until context and page are ready, with a pause between episodes as generation makes one (then spare contexts
are ready) and without; Playwright alone: new context, new page, the same page loaded. `actions`: click and look, one
after the other, beside Playwright's own. `at once`: 16 episodes of the oracle, begun together, until all are over. All
rounds take turns; wall time, since the work is the browser's; the processors' load is printed, as a busy machine scales
all columns alike.

    python benchmarks/browser_episodes.py
    python benchmarks/browser_episodes.py --rounds 20 --page click-checkboxes
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from playwright.async_api import Browser, async_playwright

from agent_rl.concurrency import collect
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment, MiniwobConfig
from agent_rl_envs.browser.environment import shared_browser
from agent_rl_envs.browser.miniwob.pages import site
from agent_rl_tools.browser import BrowserConfig, SharedBrowser, ViewConfig
from agent_rl_tools.browser.process import EXECUTABLES

AT_ONCE = 16
ACTIONS = 20
PAUSE_S = 0.5
GOAL_MS = 150
GOAL_PER_S = 15
START = "core.EPISODE_MAX_TIME = 1e9, core.startEpisodeReal()"
SIZE = {"width": 500, "height": 400}


async def ms(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return 1e3 * (time.perf_counter() - began)


async def bare_begin(browser: Browser, url: str) -> float:
    async def begin() -> None:
        context = await browser.new_context(viewport=SIZE)  # type: ignore[arg-type]
        contexts.append(context)
        await (await context.new_page()).goto(url)

    contexts: list = []
    took = await ms(begin)
    await contexts[0].close()
    return took


async def our_begin(shared: SharedBrowser, url: str, pause_s: float) -> float:
    async def begin() -> None:
        opened.append(await shared.tools(url))

    opened: list = []
    await anyio.sleep(pause_s)
    took = await ms(begin)
    await opened[0].close()
    return took


async def bare_actions(browser: Browser, url: str) -> float:
    context = await browser.new_context(viewport=SIZE)  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(url)
    await page.evaluate(START)

    async def act() -> None:
        for _ in range(ACTIONS):
            await page.locator("#query").click()
            await page.aria_snapshot(mode="ai")

    took = await ms(act)
    await context.close()
    return 1e3 * ACTIONS / took


async def our_actions(shared: SharedBrowser, url: str) -> float:
    tools = await shared.tools(url)
    await tools.page.evaluate(START)

    async def act() -> None:
        for _ in range(ACTIONS):
            await tools.browser_click_at.function(12, 12)

    took = await ms(act)
    await tools.close()
    return 1e3 * ACTIONS / took


async def at_once(config: BrowserEnvConfig) -> float:
    async def play(environment: BrowserEnvironment, task: object) -> None:
        await environment.reset(task, 0)  # type: ignore[arg-type]
        step = await environment.step(environment.oracle_action())
        while not step.terminated:
            step = await environment.step(environment.oracle_action())
        assert step.reward == 1.0
        await environment.close()

    tasks = BrowserEnvironment.tasks("train", AT_ONCE, 0, config)
    plays = [lambda task=task: play(BrowserEnvironment(config), task) for task in tasks]
    return await ms(lambda: collect(plays))


def row(name: str, values: list[float], goal: str) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:<44} {low:8.0f} {middle:8.0f} {high:8.0f}   {goal}")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--page", default="click-button")
    options = parser.parse_args()
    config = BrowserEnvConfig(
        miniwob=MiniwobConfig(pages=options.page),
        view=ViewConfig(observation="elements", header=False),
        browser=BrowserConfig(width=SIZE["width"], height=SIZE["height"]),
    )
    async with tool_services(ToolsConfig()), async_playwright() as playwright:
        shared, url = await shared_browser(config.browser), f"{await site()}/{options.page}.html"
        found = next(filter(None, map(shutil.which, EXECUTABLES)), None)
        browser = await playwright.chromium.launch(executable_path=found, chromium_sandbox=False)
        await our_begin(shared, url, 0)
        measured: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, work in (
                ("begin, Playwright alone (ms)", partial(bare_begin, browser, url)),
                ("begin, after a pause (ms)", partial(our_begin, shared, url, PAUSE_S)),
                ("begin, one after the other (ms)", partial(our_begin, shared, url, 0)),
                ("click and look, Playwright alone (per s)", partial(bare_actions, browser, url)),
                ("click and look (per s)", partial(our_actions, shared, url)),
                (f"{AT_ONCE} episodes at once, all over (ms)", partial(at_once, config)),
            ):
                measured.setdefault(name, []).append(await work())
        await browser.close()
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    print(f"{options.page}, {options.rounds} rounds; load {load:.1f} on {processors} processors")
    print(f"{'':<44} {'least':>8} {'median':>8} {'most':>8}")
    for name, values in measured.items():
        goal = f"goal < {GOAL_MS}" if name.startswith("begin, after") else ""
        row(name, values, goal or (f"goal > {GOAL_PER_S}" if name == "click and look (per s)" else ""))


if __name__ == "__main__":
    anyio.run(main)
