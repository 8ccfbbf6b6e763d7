"""Choose tasks by how often somebody solves them: what all or none of the attempts solve teaches nothing.

Knows pass rates and files of tasks, one JSON object a line. Who plays is the harness's matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator
from rich.table import Table

from agent_rl.errors import ConfigError
from agent_rl.evaluate.eval_config import EvalConfig
from agent_rl.evaluate.harness import run
from agent_rl.evaluate.report import succeeds
from agent_rl.store.tasks import write_tasks
from agent_rl.types import Group, Task

Verdict: TypeAlias = Literal["kept", "too hard", "too easy", "not measured"]


class SelectConfig(EvalConfig):
    """Keep the tasks that an agent solves sometimes, and write them to a file for `--task-file`."""

    free: ClassVar[tuple[str, ...]] = (*EvalConfig.free, "min_pass_rate", "max_pass_rate", "output")

    split: str = Field(default="train", description="Which tasks of the environment.")
    samples: int = Field(default=8, ge=1, description="Attempts at each task.")
    min_pass_rate: float = Field(default=0.05, ge=0, le=1, description="A task that is solved less often is too hard.")
    max_pass_rate: float = Field(default=0.95, ge=0, le=1, description="A task that is solved more often is too easy.")
    output: Path | None = Field(default=None, description="The file of kept tasks (.jsonl); needed.")

    @model_validator(mode="after")
    def _a_range_and_a_file(self) -> Self:
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError(f"min_pass_rate {self.min_pass_rate} is above max_pass_rate {self.max_pass_rate}.")
        if self.output is None:
            raise ValueError("name the file for the kept tasks: --output tasks.jsonl.")
        return self


def verdict(group: Group, config: SelectConfig) -> Verdict:
    """On a task, by the share of its valid episodes that succeed. With no valid one, nothing was measured."""
    if not group.valid:
        return "not measured"
    rate = sum(succeeds(episode.reward, config.success_threshold) for episode in group.valid) / len(group.valid)
    if rate < config.min_pass_rate:
        return "too hard"
    return "too easy" if rate > config.max_pass_rate else "kept"


def select(config: SelectConfig, on_group: Callable[[Group], object] = lambda group: None) -> Counter[Verdict]:
    """Play, write `config.output` and return how many tasks got which verdict.

    They are written when all have been measured, in the environment's order. Raises `UserError` like the harness.
    """
    assert config.output is not None, "the config says so"
    if config.output.exists():
        raise ConfigError(f"{config.output} exists already: name another file, or remove it.")
    if not config.output.parent.is_dir():
        raise ConfigError(f"{config.output} cannot be written: its folder does not exist.")
    verdicts: dict[int, tuple[Verdict, Task]] = {}

    def judge(group: Group) -> None:
        verdicts[group.index] = verdict(group, config), group.task
        on_group(group)

    run(config, judge)
    ordered = [verdicts[index] for index in sorted(verdicts)]
    write_tasks(config.output, (task for said, task in ordered if said == "kept"))
    return Counter(said for said, _ in ordered)


def to_table(counts: Counter[Verdict], config: SelectConfig) -> Table:
    """What became of the tasks."""
    who = config.model or config.agent
    title = f"{config.environment}: {counts.total()} tasks, {config.samples} attempts each by {who}"
    table = Table("verdict", "tasks", "pass rate", title=title, title_justify="left")
    ranges: dict[Verdict, str] = {
        "kept": f"{config.min_pass_rate:g} to {config.max_pass_rate:g}",
        "too hard": f"below {config.min_pass_rate:g}",
        "too easy": f"above {config.max_pass_rate:g}",
        "not measured": "no attempt counted",
    }
    for said, rates in ranges.items():
        if counts[said] or said != "not measured":
            table.add_row(said, str(counts[said]), rates)
    return table
