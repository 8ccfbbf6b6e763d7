"""Tasks from rows in WebArena's format, on sites whose addresses the config gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from agent_rl.config import Config
from agent_rl.errors import GraderFailure, ToolError, UserError
from agent_rl.rewards.judge import JudgeConfig, shared_judge
from agent_rl.rows import RowsConfig, sample_rows
from agent_rl.types import Message, Task
from agent_rl_envs.browser.sources import Assignment, TaskSource, Verdict
from agent_rl_envs.browser.webarena.checks import content_match, exact_match, must_include, url_match
from agent_rl_envs.browser.webarena.rows import read_task
from agent_rl_tools.browser import AllowList, BrowserTools, PageConfig

_UNACHIEVABLE = "N/A"


class WebArenaConfig(Config):
    """Options of rows in WebArena's format."""

    rows: RowsConfig = Field(default=RowsConfig(), description="The rows, such as test.raw.json.")
    sites: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Address of each site that rows name, such as shopping: http://localhost:7770.",
    )
    logins: Path | None = Field(
        default=None, description="Folder that the rows' storage_state files (cookies of a login) are in."
    )
    judge: JudgeConfig | None = Field(default=None, description="The model that judges answers of fuzzy_match.")


class WebArenaSource(TaskSource):
    """Rows whose checks are programs for WebArena's own sites (`func:`) are left out."""

    def __init__(self, config: WebArenaConfig) -> None:
        self._config = config

    def tasks(self, split: str, count: int, seed: int) -> Sequence[Task]:
        """Raises `UserError` for rows that cannot be judged with these options."""
        config = self._config
        if not config.rows.source:
            raise UserError("The source webarena needs rows: give webarena.rows.source, such as test.raw.json.")
        tasks: list[Task] = []
        for row in sample_rows(config.rows, split, count, seed):
            if (data := read_task(row, config.sites)) is None:
                continue
            if config.judge is None and "fuzzy_match" in (data["eval"].get("reference_answers") or {}):
                raise row.bad("eval", "fuzzy_match needs a judge: give webarena.judge.model and base_url")
            prompt = (Message("user", data["intent"]),)
            tasks.append(Task(f"browser/webarena/{data['id']}", prompt, data, "browser", ("webarena",)))
        return tasks

    async def open(self, task: Task, seed: int) -> Assignment:
        """`seed` is not used: sites are as they are."""
        return _WebArenaTask(task.data, self._config)


class _WebArenaTask(Assignment):
    def __init__(self, data: Mapping[str, Any], config: WebArenaConfig) -> None:
        self.url = data["url"]
        addresses = [entry for site in (data["sites"] or [self.url]) for entry in AllowList.site_of(site).entries]
        self.allowed_hosts = tuple(dict.fromkeys((*AllowList.site_of(self.url).entries, *addresses)))
        self.page = PageConfig(storage_state=_login(data["storage_state"], config.logins))
        self._data, self._config = data, config

    async def prepare(self, browser: BrowserTools) -> str:
        """Nothing to prepare: resetting the sites is up to whoever runs them."""
        return self._data["intent"]

    async def verdict(self, browser: BrowserTools, answer: str | None, *, last: bool) -> Verdict | None:
        """At the end: 1 if all checks hold."""
        if not last:
            return None
        check, held = self._data["eval"], True
        for kind in check["eval_types"]:  # the page's address before pages are opened to look at
            if kind == "url_match":
                held = held and url_match(browser.page.url, check["reference_url"])
        if held and "string_match" in check["eval_types"]:
            held = await self._answers(answer or "", check)
        if held and "program_html" in check["eval_types"]:
            held = all([await self._contains(browser, target) for target in check["program_html"]])
        return Verdict(held, float(held))

    async def _answers(self, answer: str, check: Mapping[str, Any]) -> bool:
        for kind, reference in check["reference_answers"].items():
            if kind == "exact_match" and not exact_match(answer, reference):
                return False
            if kind == "must_include" and not must_include(answer, reference):
                return False
            if kind == "fuzzy_match" and not await self._fuzzy(answer, reference, check):
                return False
        return True

    async def _fuzzy(self, answer: str, reference: str | Sequence[str], check: Mapping[str, Any]) -> bool:
        assert self._config.judge is not None, "tasks() refused such rows"
        judge, intent = await shared_judge(self._config.judge), self._data["intent"]
        if reference == _UNACHIEVABLE:
            if exact_match(answer, _UNACHIEVABLE):
                return True
            why = f"It cannot be done. The reason: {check.get('string_note', '')}"
            return await judge.score(intent, answer, why) >= 1
        references = [reference] if isinstance(reference, str) else reference
        return all([await judge.score(intent, answer, one) >= 1 for one in references])

    async def _contains(self, browser: BrowserTools, target: Mapping[str, Any]) -> bool:
        """Whether a page has what is required. That the page is not there is a failure."""
        try:
            if target["url"] != "last":
                await browser.tabs.go(target["url"])
        except ToolError as error:
            raise GraderFailure(f"The page to check, {target['url']}, does not load: {error}") from error
        return content_match(await _part(browser, target), target["required_contents"])


async def _part(browser: BrowserTools, target: Mapping[str, Any]) -> str:
    locator: str = target.get("locator", "").strip()
    try:
        for action in target.get("prep_actions", ()):
            await browser.tabs.guarded(lambda action=action: browser.page.evaluate(f"() => {action}"))
    except ToolError:
        pass  # as in the original: the page is looked at all the same
    try:
        if not locator:
            return await browser.tabs.guarded(browser.page.content)
        return str(await browser.tabs.guarded(lambda: browser.page.evaluate(f"() => {locator}")) or "")
    except ToolError:
        return ""


def _login(file: str, folder: Path | None) -> Path | None:
    if not file:
        return None
    if folder is None:
        raise UserError("These rows need a login: give webarena.logins, the folder of their storage_state files.")
    path = folder / Path(file).name
    if not path.is_file():
        raise UserError(f"There is no {path}, the login that a row needs.")
    return path
