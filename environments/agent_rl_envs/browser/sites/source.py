"""Tasks on the sites: drawn from templates and worlds, judged by the database that an episode leaves."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from functools import partial

from pydantic import Field

from agent_rl.concurrency import in_thread
from agent_rl.config import Config
from agent_rl.errors import EnvironmentFailure, UserError, not_found
from agent_rl.seeding import stream
from agent_rl.tool import share
from agent_rl.types import Message, Task
from agent_rl_envs.browser.acting import act
from agent_rl_envs.browser.sites.checks import compare, says
from agent_rl_envs.browser.sites.database import tables_of
from agent_rl_envs.browser.sites.oracle import Way
from agent_rl_envs.browser.sites.problems import Problem, Unsuitable
from agent_rl_envs.browser.sites.serving import APP_NAMES, OpenSites, open_sites
from agent_rl_envs.browser.sites.templates import TEMPLATES
from agent_rl_envs.browser.sites.world import World, make_world
from agent_rl_envs.browser.sources import Assignment, TaskSource, Verdict
from agent_rl_tools.browser import BrowserTools, PageView

_SPLITS = ("train", "test")
_DRAWS = 1000  # of worlds and numbers, until one must have had a task
_OF_ONE = 40  # of them for one template
_EASY, _MIDDLE = 4, 9  # actions, at most


class SitesConfig(Config):
    """Options of the tasks on the shipped sites."""

    templates: str = Field(
        default="",
        description="Names of templates or of apps (shop, forum, mail, admin, forms, calendar, cross), separated by "
        "commas; empty: all.",
    )
    max_actions: int = Field(
        default=30, ge=1, description="Leave out tasks for which the oracle takes more actions than these."
    )
    worlds: int = Field(default=100, ge=1, description="How many different databases the tasks of a split are on.")


class SitesSource(TaskSource):
    """Worlds of `train` have even numbers, those of `test` odd ones."""

    def __init__(self, config: SitesConfig) -> None:
        self._config = config

    def tasks(self, split: str, count: int, seed: int) -> Sequence[Task]:
        """Templates evenly; no instruction twice on one world. Raises `UserError` for unknown templates."""
        names = _named(self._config.templates)
        tasks: list[Task] = []
        taken: set[tuple[int, str]] = set()
        for index in range(count):
            task = self._task(split, seed, index, names, taken)
            if task is None:
                break
            tasks.append(task)
        if not tasks:
            raise UserError("No task of these templates is that short: raise sites.max_actions.")
        return tasks

    async def open(self, task: Task, seed: int) -> Assignment:
        """`seed` is not used: siblings begin with the same database."""
        name, number, draw = task.data["template"], task.data["world"], task.data["draw"]
        world = await in_thread(partial(_ready_world, number))
        sites = await share("browser sites", open_sites)
        return SitesTask(_problem(name, number, draw), world, TEMPLATES[name][0], await sites.open(world.image))

    def _task(
        self, split: str, seed: int, index: int, names: Sequence[str], taken: set[tuple[int, str]]
    ) -> Task | None:
        """A random template's, in a random world that has one; none where all have been taken."""
        rng = stream("browser sites", split, seed, index)
        name = ""
        for attempt in range(_DRAWS):
            if attempt % _OF_ONE == 0:
                name = names[int(rng.integers(len(names)))]
            number = 2 * int(rng.integers(self._config.worlds)) + _SPLITS.index(split)
            draw = int(rng.integers(1 << 30))
            try:
                problem = _problem(name, number, draw)
            except Unsuitable:
                continue
            if problem.actions > self._config.max_actions or (number, problem.instruction) in taken:
                continue
            taken.add((number, problem.instruction))
            prompt = (Message("user", problem.instruction),)
            data = {"template": name, "world": number, "draw": draw}
            tags = (name, TEMPLATES[name][0], f"difficulty_{difficulty(problem)}")
            return Task(f"browser/sites/{split}/{seed}/{index}/{name}", prompt, data, "browser", tags)
        return None


def difficulty(problem: Problem) -> int:
    """From 1 to 3, by the number of actions that it takes."""
    return 1 if problem.actions <= _EASY else 2 if problem.actions <= _MIDDLE else 3


class SitesTask(Assignment):
    """One task on one database."""

    allowed_hosts = tuple(f"{name}.test:80" for name in APP_NAMES)

    def __init__(self, problem: Problem, world: World, app: str, sites: OpenSites) -> None:
        self.url = f"http://{app if app in APP_NAMES else 'mail'}.test/"
        self.routes = sites.routes
        self._problem, self._world, self._sites = problem, world, sites
        self._way = Way(problem.way, problem.answer)
        self._prepared = False

    async def prepare(self, browser: BrowserTools) -> str:
        """The second time, everything is as in the beginning."""
        if self._prepared:
            await self._sites.reset(self._world.image)
            await browser.tabs.go(self.url)
            self._way = Way(self._problem.way, self._problem.answer)
        self._prepared = True
        return self._problem.instruction

    async def verdict(self, browser: BrowserTools, answer: str | None, *, last: bool) -> Verdict | None:
        """At the end: whether the database is as wanted in all its rows, and the answer is right.

        The score is the share of what is wanted that was done, less what was done beside it, and at least 0.
        """
        if not last:
            if not self._sites.alive:
                raise EnvironmentFailure("The server of the sites has died.", kind="died")
            return None
        problem = self._problem
        after = await in_thread(partial(tables_of, await self._sites.image()))
        outcome = compare(self._world.tables, after, problem.wanted)
        right = bool(problem.answer) and says(answer or "", problem.answer)
        done, wanted = outcome.made + right, outcome.wanted + bool(problem.answer)
        score = max(0.0, (done - outcome.others) / wanted)
        metrics = {"changes_wanted": float(outcome.wanted), "changes_beside": float(outcome.others)}
        return Verdict(done == wanted and not outcome.others, score, metrics)

    def oracle(self, view: PageView) -> Message:
        """The next action on the way."""
        return self._way.next(view)

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """To write what is wanted where it does not count, and to ask the server instead of the site."""
        done = Message("assistant", "done")
        box = act("navigate", url="http://forum.test/search")
        wish = act("type", ref="e8", text=self._problem.instruction, submit=True)
        port = next(iter(self.routes.values())).port
        return {
            "searches for the instruction": (box, wish, Message("assistant", self._problem.instruction)),
            "asks the server": (act("navigate", url=f"http://127.0.0.1:{port}/episodes/x"), done),
            "asks the site for its database": (act("navigate", url=f"{self.url}episodes/x"), done),
            "goes elsewhere": (act("navigate", url="http://example.org/"), done),
        }

    async def close(self) -> None:
        """Drop the database."""
        await self._sites.close()


def _ready_world(number: int) -> World:
    """With its database, so that the event loop need not stand still for it."""
    world = make_world(number)
    _ = world.tables
    return world


@functools.lru_cache(maxsize=4096)
def _problem(name: str, world: int, draw: int) -> Problem:
    return TEMPLATES[name][1](make_world(world), stream("browser sites problem", name, world, draw))


def _named(listed: str) -> Sequence[str]:
    names: list[str] = []
    for name in filter(None, map(str.strip, listed.split(","))):
        of_app = [template for template, (app, _) in TEMPLATES.items() if app == name]
        if not of_app and name not in TEMPLATES:
            apps = {app for app, _ in TEMPLATES.values()}
            raise not_found("template of sites", name, [*TEMPLATES, *apps])
        names += of_app or [name]
    return names or list(TEMPLATES)
