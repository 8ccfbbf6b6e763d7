"""Two evaluations side by side, task by task. Reads the folders that `agent-rl eval --run-dir` wrote.

Tasks are matched by their ids; a task that occurs several times is matched in order. Episodes that infrastructure
failed count for nothing, and a task without another one is left out; the numbers say so.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self, TypeAlias

import numpy as np
from pydantic import Field, model_validator
from rich import box
from rich.table import Table
from rich.text import Text

from agent_rl.config import Config
from agent_rl.errors import ConfigError, UserError
from agent_rl.evaluate.paired import Difference, paired_difference, tasks_for
from agent_rl.evaluate.report import succeeds
from agent_rl.evaluate.statistics import Estimate, Values, mean, proportion
from agent_rl.store.opening import open_journal

Occurrence: TypeAlias = tuple[str, int]
_PRECISIONS = (0.05, 0.02, 0.01)


class CompareConfig(Config):
    """Compare two evaluations of the same tasks: A, then B."""

    runs: tuple[Path, ...] = Field(default=(), description="Two folders that `agent-rl eval --run-dir` wrote.")
    score: Literal["success", "reward"] = Field(default="success", description="What is compared.")
    success_threshold: float = Field(default=1.0, description="An episode succeeds when its reward reaches this.")
    show: int = Field(default=10, ge=0, description="Tasks that are listed for each direction.")
    output: Path | None = Field(default=None, description="Write everything to this JSON file.")

    @model_validator(mode="after")
    def _two(self) -> Self:
        if len(self.runs) != 2:
            raise ValueError(f"give two folders to compare, not {len(self.runs)}: agent-rl compare runs/a runs/b.")
        return self


class Flip(NamedTuple):
    """A task that one solves more often than the other."""

    task_id: str
    a: float
    b: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """`a` and `b` are the scores on the tasks of both; `better` and `worse` the tasks on which B gains and loses, the
    largest changes first. `only_a` and `only_b` tasks are left out. `needed` says how many tasks would give an interval
    of the difference of at most +- each precision; it is empty where nothing varies.
    """

    a: Estimate
    b: Estimate
    paired: Difference
    better: tuple[Flip, ...]
    worse: tuple[Flip, ...]
    only_a: int
    only_b: int
    needed: dict[float, int]


def run(config: CompareConfig) -> Comparison:
    """Read, compare, and write `config.output`. Raises `UserError` for a folder without episodes or no common task."""
    if config.output is not None and not config.output.parent.is_dir():
        raise ConfigError(f"{config.output} cannot be written: its folder does not exist.")
    a, b = (read_values(folder, config) for folder in config.runs)
    found = compare(a, b, share=config.score == "success")
    if config.output is not None:
        config.output.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return found


def read_values(folder: Path, config: CompareConfig) -> dict[Occurrence, float]:
    """One value for each task of a run: the share of its valid episodes that succeed, or their mean reward."""
    with open_journal(folder) as journal:
        scores = journal.scores()
    rewards: defaultdict[int, list[float]] = defaultdict(list)
    ids: dict[int, str] = {}
    for score in scores:
        ids[score.group_index] = score.task_id
        if score.failure_owner is None and score.reward is not None:
            rewards[score.group_index].append(score.reward)
    seen: Counter[str] = Counter()
    values: dict[Occurrence, float] = {}
    for index, task_id in sorted(ids.items()):
        if rewards[index]:
            values[task_id, seen[task_id]] = _value(rewards[index], config)
        seen[task_id] += 1
    return values


def _value(rewards: list[float], config: CompareConfig) -> float:
    if config.score == "reward":
        return float(np.mean(rewards))
    return sum(succeeds(reward, config.success_threshold) for reward in rewards) / len(rewards)


def compare(a: dict[Occurrence, float], b: dict[Occurrence, float], *, share: bool) -> Comparison:
    """B against A on the tasks of both, whose values are shares or not. Raises `UserError` without a common task."""
    common = [key for key in a if key in b]
    if not common:
        raise UserError("The two runs have no task in common: evaluate both on the same tasks and seed.")
    a_N, b_N = (np.array([values[key] for key in common], np.float64) for values in (a, b))
    flips = [Flip(task_id, a[task_id, n], b[task_id, n]) for task_id, n in common]
    by_gain = sorted(flips, key=lambda flip: flip.a - flip.b)
    score = proportion if share else mean
    return Comparison(
        score(a_N),
        score(b_N),
        paired_difference(a_N, b_N),
        tuple(flip for flip in by_gain if flip.b > flip.a),
        tuple(flip for flip in reversed(by_gain) if flip.b < flip.a),
        len(a) - len(common),
        len(b) - len(common),
        _needed(b_N - a_N),
    )


def _needed(d_N: Values) -> dict[float, int]:
    return {width: tasks_for(d_N, width) for width in _PRECISIONS} if len(d_N) > 1 and np.ptp(d_N) > 0 else {}


def to_tables(found: Comparison, config: CompareConfig) -> list[Table | Text]:
    """The scores and their difference, then the tasks that changed."""
    paired = found.paired
    title = Text(f"{config.score} on {paired.tasks} common tasks, 95 percent intervals", "bold")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("", "", "value", "interval"):
        table.add_column(column, justify="right" if column else "left")
    named = zip(("A", "B", "B - A"), (*map(str, config.runs), ""), (found.a, found.b, paired.difference), strict=True)
    for name, folder, estimate in named:
        table.add_row(name, Text(folder), f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}")
    lines = [f"p = {paired.p_value:.3g} that chance alone makes as large a difference (sign flips of tasks)."]
    if found.only_a or found.only_b:
        lines.append(f"Left out, for want of a partner: {found.only_a} tasks of A, {found.only_b} of B.")
    if found.needed:
        lines.append("Tasks for an interval of " + ", ".join(f"+-{w:g}: {n:,}" for w, n in found.needed.items()) + ".")
    parts = [title, table, Text("\n".join(lines))]
    for word, flips in (("better", found.better), ("worse", found.worse)):
        if flips and config.show:
            parts += [Text(f"\n{len(flips)} tasks on which B is {word}", "bold"), _flips(flips[: config.show])]
    return parts


def _flips(flips: tuple[Flip, ...]) -> Table:
    table = Table("task", "A", "B", box=box.SIMPLE_HEAD, show_edge=False)
    for flip in flips:
        # An id may hold the codes of a terminal.
        name = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in flip.task_id)
        table.add_row(Text(name), f"{flip.a:.2f}", f"{flip.b:.2f}")
    return table
