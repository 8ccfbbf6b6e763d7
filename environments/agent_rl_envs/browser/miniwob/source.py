"""MiniWoB++ pages as tasks: a page and a seed; the page makes the instruction and gives the reward itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from agent_rl.config import Config
from agent_rl.errors import EnvironmentFailure, ToolError, not_found
from agent_rl.seeding import stream
from agent_rl.types import Message, Task
from agent_rl_envs.browser.acting import act
from agent_rl_envs.browser.miniwob.pages import page_names, site
from agent_rl_envs.browser.miniwob.solvers import SOLVERS
from agent_rl_envs.browser.sources import Assignment, TaskSource, Verdict
from agent_rl_tools.browser import BrowserTools, PageConfig, PageView

_LONG_MS = 10**9  # rewards here do not fall with time
_MOST_SEEDS = 2**30
# The page's own display shows rewards and seconds, and the instruction is given by us.
_BEGIN = """([seed, longest_ms]) => {
    const style = document.createElement("style");
    style.textContent = "#sync-task-cover, #reward-display, #click-canvas { display: none !important; }";
    document.head.append(style);
    document.getElementById("query").setAttribute("aria-hidden", "true");
    Math.seedrandom(seed);
    core.EPISODE_MAX_TIME = longest_ms;
    core.startEpisodeReal();
    globalThis.agentRlEpisode = seed;
    return core.getUtterance();
}"""
# Another page, or this one loaded anew, is another problem.
_OUTCOME = """(seed) => globalThis.agentRlEpisode !== seed ? null
    : {ready: WOB_TASK_READY, done: WOB_DONE_GLOBAL, reward: WOB_RAW_REWARD_GLOBAL}"""


class MiniwobConfig(Config):
    """Options of the MiniWoB++ tasks."""

    pages: str = Field(
        default="",
        description="Names of pages such as click-checkboxes, separated by commas, or all; empty: those that the "
        "oracle can solve.",
    )


class MiniwobSource(TaskSource):
    """Tasks of `train` have even seeds, those of `test` odd ones."""

    def __init__(self, config: MiniwobConfig) -> None:
        self._config = config

    def tasks(self, split: str, count: int, seed: int) -> Sequence[Task]:
        """Pages evenly."""
        pages = self._pages()
        tasks: list[Task] = []
        for index in range(count):
            rng = stream("miniwob task", split, seed, index)
            page = pages[int(rng.integers(len(pages)))]
            page_seed = 2 * int(rng.integers(_MOST_SEEDS)) + (split == "test")
            prompt = (Message("user", "The instruction comes with the page."),)
            data = {"page": page, "seed": page_seed}
            tasks.append(Task(f"browser/miniwob/{split}/{seed}/{index}/{page}", prompt, data, "browser", (page,)))
        return tasks

    async def open(self, task: Task, seed: int) -> Assignment:
        """`seed` is not used: siblings have one page."""
        return MiniwobTask(task.data["page"], task.data["seed"], f"{await site()}/{task.data['page']}.html")

    def _pages(self) -> Sequence[str]:
        known = page_names()
        if self._config.pages == "all":
            return known
        named = [name.strip() for name in self._config.pages.split(",") if name.strip()]
        for page in named:
            if page not in known:
                raise not_found("MiniWoB++ page", page, known)
        return named or tuple(SOLVERS)


class MiniwobTask(Assignment):
    """One page."""

    def __init__(self, name: str, seed: int, url: str) -> None:
        self.url = url
        self.page = PageConfig(clock="stepped", random_seed=seed)
        self._name, self._seed = name, seed
        self._instruction = ""

    async def prepare(self, browser: BrowserTools) -> str:
        """Raises `EnvironmentFailure` when the page does not start."""
        try:
            said = await browser.tabs.guarded(lambda: browser.page.evaluate(_BEGIN, [str(self._seed), _LONG_MS]))
            outcome = await self._outcome(browser)
        except ToolError as error:
            raise EnvironmentFailure(f"The page {self._name} does not start: {error}") from error
        if outcome is None or not outcome["ready"]:
            raise EnvironmentFailure(f"The page {self._name} was not ready.")
        self._instruction = said["utterance"] if isinstance(said, dict) else said  # some say what it is about, too
        return self._instruction

    async def verdict(self, browser: BrowserTools, answer: str | None, *, last: bool) -> Verdict | None:
        """The page's raw reward, from -1 to 1, when the page is done; -1 as at its own time limit otherwise."""
        try:
            outcome = await self._outcome(browser)
        except ToolError:
            outcome = None
        if outcome is not None and outcome["done"]:
            reward = float(outcome["reward"])
            return Verdict(reward >= 1.0, reward)
        return Verdict(False, -1.0) if last or outcome is None else None

    def oracle(self, view: PageView) -> Message:
        """That of the page's solver, where there is one."""
        if self._name not in SOLVERS:
            raise NotImplementedError(f"there is no solver of {self._name}")
        return SOLVERS[self._name](self._instruction, view)

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """To leave for an easier page, and to begin anew."""
        easier = self.url.rpartition("/")[0] + "/click-test.html"
        play = (act("click", ref="e2"), act("click", ref="e1"))  # its cover, then its button
        return {
            "goes to another page": (act("navigate", url=easier), *play, Message("assistant", "done")),
            "loads the page anew": (act("navigate", url=self.url), *play, Message("assistant", "done")),
        }

    async def _outcome(self, browser: BrowserTools) -> Mapping[str, Any] | None:
        """What the page says of itself; `None` when another page is there."""
        return await browser.tabs.guarded(lambda: browser.page.evaluate(_OUTCOME, str(self._seed)))
