"""The `browser` environment: do what an instruction asks, on real pages, with a browser's tools.

A source (`sources.py`) says which tasks there are and how good an episode was; here is the episode: opening the page,
the tools that are offered, the budget of actions, the reward terms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from agent_rl.config import Config
from agent_rl.errors import EnvironmentFailure, ToolError, did_you_mean, not_found
from agent_rl.grading import grade
from agent_rl.rewards import Weights, check_weights, weighted
from agent_rl.tool import Tool, ToolEnvironment, run_tool_calls, share
from agent_rl.types import Message, Step, StepInfo, Task, ToolResult
from agent_rl_envs.browser.acting import random_move
from agent_rl_envs.browser.miniwob.source import MiniwobConfig, MiniwobSource
from agent_rl_envs.browser.sites.source import SitesConfig, SitesSource
from agent_rl_envs.browser.sources import Assignment, TaskSource, Verdict
from agent_rl_envs.browser.webarena.source import WebArenaConfig, WebArenaSource
from agent_rl_tools.browser import AllowList, BrowserConfig, BrowserTools, SharedBrowser, ViewConfig, open_browser

SourceName = Literal["miniwob", "sites", "webarena"]
ACTIONS = tuple(tool.name.removeprefix("browser_") for tool in BrowserTools.offered())
TERMS = ("success", "score", "invalid_actions", "actions")
_SOURCES: dict[SourceName, Callable[[BrowserEnvConfig], TaskSource]] = {
    "miniwob": lambda config: MiniwobSource(config.miniwob),
    "sites": lambda config: SitesSource(config.sites),
    "webarena": lambda config: WebArenaSource(config.webarena),
}


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


class BrowserEnvConfig(Config):
    """Options of `browser`."""

    source: SourceName = Field(default="miniwob", description=f"Where tasks come from: {', '.join(_SOURCES)}.")
    miniwob: MiniwobConfig = Field(default=MiniwobConfig(), description="Options of the MiniWoB++ pages.")
    sites: SitesConfig = Field(default=SitesConfig(), description="Options of the shipped sites.")
    webarena: WebArenaConfig = Field(default=WebArenaConfig(), description="Options of rows in WebArena's format.")
    actions: str = Field(
        default="",
        description=f"The tools that are offered, separated by commas; empty: all of {', '.join(ACTIONS)}.",
    )
    view: ViewConfig = Field(default=ViewConfig(), description="What the model sees of a page.")
    browser: BrowserConfig = Field(default=BrowserConfig(), description="How the browser is started.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Hosts that may be reached beside the task's own, such as cdn.test or *.shop.test:8000."
    )
    max_actions: int = Field(
        default=30, ge=1, description="Turns with actions; after the last the task is judged as it stands."
    )
    judge_timeout_s: float = Field(default=150.0, gt=0, description="Deadline of judging the state of a task.")
    noise: float = Field(
        default=1.0, ge=0, le=1, description="Share of the random agent's actions that are random, not the oracle's."
    )
    weights: Weights = Field(default={"success": 1.0}, description=f"Weight of each reward term: {', '.join(TERMS)}.")

    @field_validator("actions")
    @classmethod
    def _actions_exist(cls, actions: str) -> str:
        for name in _names(actions):
            if name not in ACTIONS:
                raise ValueError(f"there is no action {name!r}.{did_you_mean(name, ACTIONS)}")
        return actions

    @field_validator("weights")
    @classmethod
    def _terms_exist(cls, weights: Weights) -> Weights:
        return check_weights(weights, TERMS)


_DEFAULTS = BrowserEnvConfig()


class BrowserEnvironment(ToolEnvironment):
    """One task in a browser.

    Two entries of `Task.data` belong to curricula, whatever the source: `max_actions`, and `solved_share`, the share of
    the oracle's actions that are done before the model begins.
    """

    config_type = BrowserEnvConfig

    def __init__(self, config: BrowserEnvConfig = _DEFAULTS) -> None:
        self._config = config
        self._offered = frozenset(f"browser_{action}" for action in _names(config.actions) or ACTIONS)
        self._assignment: Assignment | None = None
        self._browser: BrowserTools | None = None
        self._instruction = ""
        self._seen = ""
        self._actions = 0

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0, config: BrowserEnvConfig = _DEFAULTS) -> Sequence[Task]:
        """`count` tasks of the source; fewer where it has no more."""
        if split not in ("train", "test"):
            raise not_found("split", split, ("train", "test"))
        return _SOURCES[config.source](config).tasks(split, count, seed)

    @property
    def tools(self) -> Sequence[Tool]:
        """Those of the browser's tools that are offered."""
        return tuple([tool for tool in super().tools if tool.name in self._offered])

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        """The instruction and the first page."""
        config = self._config
        self._max_actions = int(task.data.get("max_actions", config.max_actions))
        assignment = self._assignment = await _SOURCES[config.source](config).open(task, seed)
        shared = await shared_browser(config.browser)
        hosts = assignment.allowed_hosts
        if config.allowed_hosts:
            own = hosts if hosts is not None else AllowList.site_of(assignment.url).entries
            hosts = (*own, *config.allowed_hosts)
        browser = await shared.tools(
            assignment.url, allowed_hosts=hosts, view=config.view, page=assignment.page, routes=assignment.routes
        )
        self._browser, self.toolsets = browser, (browser,)
        try:
            await self._begin()
            await self._solve(float(task.data.get("solved_share", 0.0)))
        except ToolError as error:
            raise EnvironmentFailure(f"The first page, {assignment.url}, does not load: {error}") from error
        return (Message("system", self._system_prompt()), Message("user", f"{self._instruction}\n\n{self._seen}"))

    async def step(self, action: Message) -> Step:
        """Run the tools, then ask the source whether the task is over."""
        step = await super().step(action)
        if step.terminated:
            return step
        self._actions += 1
        self._seen = step.messages[-1].content if step.messages else self._seen
        verdict = await self._verdict(None, last=False)
        over, last = verdict is not None, self._actions >= self._max_actions
        if last and not over:
            verdict = await self._verdict(None, last=True)
        return self._step(verdict, step.messages, step.info.tool_results, terminated=over, truncated=last and not over)

    async def answer(self, action: Message) -> Step:
        """The end: the message is the answer."""
        return self._step(await self._verdict(action.content, last=True), (), (), terminated=True)

    async def close(self) -> None:
        """Close the tabs, and what the task holds."""
        assignment, self._assignment = self._assignment, None
        try:
            await super().close()
        finally:
            if assignment is not None:
                await assignment.close()

    def state_key(self) -> Hashable:
        """What the page looks like. States that only differ behind it are taken for one."""
        return self._seen

    def oracle_action(self) -> Message:
        """The source's solver, where it has one for this task."""
        return self._opened.oracle(self._tabs.view)

    def random_action(self, rng: np.random.Generator) -> Message:
        """Something to click, type or choose; with less `noise`, often the oracle's action."""
        if self._config.noise < 1 and rng.random() >= self._config.noise:
            return self.oracle_action()
        return random_move(self._tabs.view, self._instruction, rng, self._offered)

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """To say that all is done, and the source's."""
        claim = (Message("assistant", "The task is completed. success=true reward=1"),)
        return {"says it is done": claim, **self._opened.cheats()}

    def secrets(self) -> Sequence[str]:
        """The source's."""
        return self._opened.secrets()

    # --- parts ------------------------------------------------------------------------------------------------------

    async def _verdict(self, answer: str | None, *, last: bool) -> Verdict | None:
        judge = partial(self._opened.verdict, self._tabs, answer, last=last)
        return await grade(judge, timeout_s=self._config.judge_timeout_s)

    def _step(
        self, verdict: Verdict | None, messages: tuple[Message, ...], results: tuple[ToolResult, ...], **ends: bool
    ) -> Step:
        terms = {
            "success": float(verdict is not None and verdict.success),
            "score": verdict.score if verdict is not None else 0.0,
            "invalid_actions": float(sum(result.error is not None for result in results)),
            "actions": float(bool(results)),
        }
        metrics: Mapping[str, Any] = verdict.metrics if verdict is not None else {}
        info = StepInfo(results, terms, metrics)
        return Step(messages, weighted(terms, self._config.weights), info=info, **ends)

    async def _solve(self, share: float) -> None:
        """Do this share of the oracle's actions, never the last one (curriculum by warm-start, arXiv:1812.09195)."""
        if not share:
            return
        needed = 0
        while needed < self._max_actions and await self._play_oracle():
            needed += 1
        await self._tabs.tabs.go(self._opened.url)
        await self._begin()
        for _ in range(min(int(share * needed), needed - 1)):
            await self._play_oracle()

    async def _begin(self) -> None:
        self._instruction = await self._opened.prepare(self._tabs)
        self._seen = await self._tabs.observe()

    async def _play_oracle(self) -> bool:
        """One action of the oracle's; whether there was one, and the task was not over before."""
        if await self._verdict(None, last=False) is not None:
            return False
        calls = self.oracle_action().tool_calls
        if not calls or calls[0].name == "browser_stop":
            return False
        [result] = await run_tool_calls(self._tabs.tools, calls[:1])
        self._seen = result.content
        return True

    def _system_prompt(self) -> str:
        ending = "call browser_stop, with the answer if one was asked for" if "browser_stop" in self._offered else ""
        ending = ending or "reply without a tool call: with the answer if one was asked for"
        return f"You use a web browser. Do what the user asks with the tools. When it is done, {ending}."

    @property
    def _opened(self) -> Assignment:
        assert self._assignment is not None, "reset() opens the task"
        return self._assignment

    @property
    def _tabs(self) -> BrowserTools:
        assert self._browser is not None, "reset() opens the browser"
        return self._browser


async def shared_browser(config: BrowserConfig) -> SharedBrowser:
    """The browser that all episodes with these options share. Raises `UserError` outside of a run."""
    return await share(("browser", config.model_dump_json()), lambda: open_browser(config))
