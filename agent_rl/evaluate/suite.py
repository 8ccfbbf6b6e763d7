"""Several environments as one evaluation: one policy, one run folder with a sub-folder for each, one table.

    RUN/config.json, report.json     the suite
    RUN/NAME/...                     the entry called NAME, as `agent-rl eval --run-dir RUN/NAME` would have left it

Entries are played one after another with the engine that was opened once. A budget is for all of them: each gets a
share of what is left, as large as its share of the episodes that are left, so that what one saves is the others'.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import anyio
from pydantic import Field, model_validator
from rich import box
from rich.table import Table
from rich.text import Text

from agent_rl.config import build
from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.evaluate.actor import Actor, open_actor
from agent_rl.evaluate.budget import Spent, read_spent
from agent_rl.evaluate.eval_config import ActorConfig, EvalConfig, TasksConfig
from agent_rl.evaluate.harness import SPENT, open_kept, play, tasks_of
from agent_rl.evaluate.macro import macro_average
from agent_rl.evaluate.report import Report, to_cell
from agent_rl.evaluate.statistics import Estimate
from agent_rl.registry import environment_spec
from agent_rl.store.opening import open_journal
from agent_rl.store.run_folder import CONFIG_FILE, REPORT, open_run
from agent_rl.types import Group, Task


class SuiteEntry(TasksConfig):
    """One environment of a suite."""

    name: str = Field(
        default="",
        pattern=r"^[\w.-]*$",
        description="Its name, and that of its folder; the environment's id, if empty.",
    )
    weight: float = Field(default=1.0, gt=0, description="What its score weighs in the average.")

    @property
    def title(self) -> str:
        """The name that it goes by."""
        return self.name or self.environment.rpartition(":")[2]


class SuiteConfig(ActorConfig):
    """Evaluate a policy on several environments, which a file names."""

    free: ClassVar[tuple[str, ...]] = (*ActorConfig.free, "entries")  # each is checked in its own folder

    entries: tuple[SuiteEntry, ...] = Field(default=(), description="The environments, in the order of play.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if not self.entries:
            raise ValueError('a suite needs entries: write [[entries]] and environment = "..." in its file.')
        (title, count) = Counter(entry.title for entry in self.entries).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{count} entries are called {title!r}: give each a name.")
        return self

    def of(self, entry: SuiteEntry) -> EvalConfig:
        """The evaluation of one entry."""
        fields = dict(self) | dict(entry)
        for name in ("entries", "name", "weight"):
            del fields[name]
        if self.run_dir is not None:
            folder = self.run_dir / entry.title
            fields |= {"run_dir": folder, "resume": (folder / CONFIG_FILE).is_file()}
        return build(EvalConfig, fields, where=f", entry {entry.title!r}")


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """The reports by name. The averages are None while an entry has no valid episode."""

    reports: Mapping[str, Report]
    weights: Mapping[str, float]
    success: Estimate | None
    reward: Estimate | None

    @classmethod
    def of(cls, reports: Mapping[str, Report], weights: Mapping[str, float]) -> SuiteReport:
        """With the macro-averages: every entry counts as much as its weight says, however many tasks it has."""
        scores = [report.overall for report in reports.values() if report.overall is not None]
        if len(scores) < len(reports):
            return cls(reports, weights, None, None)
        shares = [weights[name] for name in reports]
        success = macro_average([score.success for score in scores], shares)
        return cls(reports, weights, success, macro_average([score.reward for score in scores], shares))

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries, fields by name."""
        return asdict(self)


class _Entry(NamedTuple):
    """An entry that can be played; `missing` counts the episodes that are not in its folder."""

    config: EvalConfig
    environment: EnvironmentSpec
    tasks: Sequence[Task]
    spent: Spent
    missing: int


def run(config: SuiteConfig, on_group: Callable[[Group], object] = lambda group: None) -> SuiteReport:
    """Play every entry, and write the report into `run_dir` if there is one.

    Raises `UserError` for what `agent-rl eval` would refuse, before anything is played.
    """
    if config.run_dir is None:
        return _run(config, on_group)
    with open_run(config, "suite", config.run_dir, resume=config.resume, free=config.free) as folder:
        report = _run(config, on_group)
        (folder / REPORT).write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    return report


def _run(config: SuiteConfig, on_group: Callable[[Group], object]) -> SuiteReport:
    entries = {entry.title: _prepared(config.of(entry)) for entry in config.entries}
    reports = anyio.run(_play, config, entries, on_group)
    return SuiteReport.of(reports, {entry.title: entry.weight for entry in config.entries})


def _prepared(config: EvalConfig) -> _Entry:
    environment = environment_spec(config.environment, config.environment_options)
    tasks = tasks_of(config, environment)
    done, spent = 0, Spent()
    if config.run_dir is not None and config.resume:
        spent = read_spent(config.run_dir / SPENT)
        with (
            suppress(UserError),
            open_journal(config.run_dir, store=config.store) as journal,
        ):  # it may hold nothing yet
            done = len({score.group_index for score in journal.scores()})
    return _Entry(config, environment, tasks, spent, (len(tasks) - done) * config.samples)


async def _play(
    config: SuiteConfig, entries: Mapping[str, _Entry], on_group: Callable[[Group], object]
) -> dict[str, Report]:
    longest = max(entry.config.limits.max_context_tokens for entry in entries.values())
    spent = sum((entry.spent for entry in entries.values()), Spent())
    missing = sum(entry.missing for entry in entries.values())
    reports: dict[str, Report] = {}
    async with open_actor(config, longest) as actor:
        for name, entry in entries.items():
            share = entry.missing / missing if missing else 0.0
            reports[name] = report = await _play_entry(config, entry, spent, share, actor, on_group)
            assert report.extent is not None, "an evaluation says how far it came"
            spent += report.extent.spent - entry.spent
            missing -= entry.missing
    return reports


async def _play_entry(
    config: SuiteConfig,
    entry: _Entry,
    spent: Spent,
    share: float,
    actor: Actor,
    on_group: Callable[[Group], object],
) -> Report:
    budget = config.budget.share(share, of_all=spent, own=entry.spent)
    ours = entry.config.model_copy(update={"budget": budget})
    with open_kept(entry.config, entry.environment) as kept:
        return await play(ours, entry.environment, entry.tasks, actor, kept, on_group)


# --- rendering ------------------------------------------------------------------------------------------------------


def to_table(report: SuiteReport, title: str = "") -> Table:
    """A row for each entry and one for the average; scores with their 95% intervals below."""
    table = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, show_edge=False)
    table.caption = "Below a score: its 95 percent interval. In the average all weigh what their weight says."
    for column in ("environment", "weight", "tasks", "success", "mean reward", "failures"):
        table.add_column(column, justify="left" if column == "environment" else "right")
    for name, entry in report.reports.items():
        table.add_row(Text(name), f"{report.weights[name]:g}", _tasks(entry), *_scores(entry), str(_failed(entry)))
    table.add_section()
    averages = [to_cell(report.success, percent=True), to_cell(report.reward)]
    tasks = sum(entry.tasks for entry in report.reports.values())
    table.add_row("macro-average", "", str(tasks), *averages, str(sum(map(_failed, report.reports.values()))))
    return table


def _tasks(report: Report) -> str:
    planned = report.tasks if report.extent is None else report.extent.planned_tasks
    return str(report.tasks) if planned == report.tasks else f"{report.tasks} of {planned}"


def _scores(report: Report) -> tuple[str, str]:
    if report.overall is None:
        return "-", "-"
    return to_cell(report.overall.success, percent=True), to_cell(report.overall.reward)


def _failed(report: Report) -> int:
    return sum(report.failures.values())
