"""What an episode on the shipped sites costs, and how many tasks there are.

`world`: the records of a new world and its database as bytes, in processor time, once for all episodes on it; beside
it, what is unavoidable: writing the same rows into SQLite. `database`: until the server has an episode's database, and
to get it back; beside it, one bare exchange with the server. `reset`: until the first page is looked at, with world and
browser warm; beside it, Playwright alone: a new context and the same page. Rounds take turns; the median of each.

    python benchmarks/browser_sites.py
    python benchmarks/browser_sites.py --rounds 40 --oracle 1
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable

import anyio

from agent_rl.tool import share
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl.types import Task
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment, SitesConfig
from agent_rl_envs.browser.environment import shared_browser
from agent_rl_envs.browser.sites.serving import open_sites
from agent_rl_envs.browser.sites.templates import TEMPLATES
from agent_rl_envs.browser.sites.world import World, make_world
from agent_rl_tools.browser import BrowserConfig

CONFIG = BrowserEnvConfig(source="sites", max_actions=40)
GOAL_MS = 20
Columns = dict[str, list[float]]


async def ms(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return 1e3 * (time.perf_counter() - began)


def cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1e3 * (time.process_time() - began)


def rewrite(world: World) -> None:
    """The same rows into an empty database."""
    connection = sqlite3.connect(":memory:")
    for table, rows in world.tables.items():
        values = [tuple(row.values()) for row in rows.values()]
        if values:
            connection.execute(f"CREATE TABLE {table} (a{', a'.join(map(str, range(len(values[0]))))})")
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values[0]))})", values)
    connection.close()


async def round_of(columns: Columns, number: int, task: Task) -> None:
    columns["world"].append(cpu_ms(lambda: make_world(number).image))
    columns["world, SQLite alone"].append(cpu_ms(lambda: rewrite(make_world(number))))
    sites = await share("browser sites", open_sites)
    opened = await sites.open(make_world(number).image)
    columns["database"].append(await ms(lambda: opened.reset(make_world(number).image)))
    columns["database back"].append(await ms(opened.image))
    columns["database, bare exchange"].append(await ms(opened.close))
    environment = BrowserEnvironment(CONFIG)
    columns["reset"].append(await ms(lambda: environment.reset(task, 0)))
    browser = await (await shared_browser(BrowserConfig())).process()
    contexts: list = []

    proxy = {"server": f"http://127.0.0.1:{environment._tabs.tabs.proxy.port}"}  # the way to the episode's sites

    async def bare() -> None:
        contexts.append(await browser.new_context(proxy=proxy))  # type: ignore[arg-type]
        await (await contexts[0].new_page()).goto("http://shop.test/")

    columns["reset, Playwright alone"].append(await ms(bare))
    await contexts[0].close()
    await environment.close()


async def oracle(each: int) -> None:
    solved = played = 0
    for name in TEMPLATES:
        config = CONFIG.model_copy(update={"sites": SitesConfig(templates=name)})
        for task in BrowserEnvironment.tasks("test", each, 0, config):
            environment = BrowserEnvironment(config)
            await environment.reset(task, 0)
            step = await environment.step(environment.oracle_action())
            while not (step.terminated or step.truncated):
                step = await environment.step(environment.oracle_action())
            solved, played = solved + int(step.reward), played + 1
            await environment.close()
    print(f"oracle: {solved} of {played} tasks of all templates")


async def main(rounds: int, each: int) -> None:
    began = time.process_time()
    tasks = BrowserEnvironment.tasks("train", 5000, 0, CONFIG)
    distinct = {(task.data["world"], task.prompt[0].content) for task in tasks}
    took = time.process_time() - began
    print(f"{len(TEMPLATES)} templates; {len(distinct)} distinct tasks of 5000 asked for, in {took:.1f} s of CPU time")
    columns: Columns = {}
    for name in ("world", "world, SQLite alone", "database", "database back", "database, bare exchange"):
        columns[name] = []
    columns |= {"reset": [], "reset, Playwright alone": []}
    start = [task for task in tasks if task.tags[1] == "shop"]
    async with tool_services(ToolsConfig()):
        await round_of({name: [] for name in columns}, 10**6, start[0])
        for at in range(rounds):
            await round_of(columns, 10**6 + 2 * at + 1, start[at])
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; goal for the database: {GOAL_MS} ms")
        for name, values in columns.items():
            print(f"{name:26} {statistics.median(values):8.1f} ms")
        if each:
            await oracle(each)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--oracle", type=int, default=0, help="tasks of each template that the oracle plays")
    given = parser.parse_args()
    anyio.run(main, given.rounds, given.oracle)
