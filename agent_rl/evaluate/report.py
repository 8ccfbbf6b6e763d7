"""What an evaluation found, from finished groups: scores with intervals, in all and by tag, and what the episodes cost.

Pure functions of groups; knows nothing of models. Infrastructure failures are counted by owner and left out of
everything else. Tasks weigh the same; a task without a valid episode is left out, and the numbers say so.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from agent_rl.evaluate import statistics
from agent_rl.evaluate.budget import Budget, Meter, Spent
from agent_rl.evaluate.statistics import Estimate, Values
from agent_rl.types import Group, Trajectory

IntervalMethod: TypeAlias = Literal["analytic", "bootstrap"]


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of one set of tasks. `pass_at[k]`, `pass_hat[k]`: k = 1, 2, 4, ... up to the samples of a task.

    Tasks with fewer than k valid episodes (after failures) are left out of that k alone.
    """

    tasks: int
    episodes: int
    success: Estimate
    reward: Estimate
    pass_at: Mapping[int, Estimate]
    pass_hat: Mapping[int, Estimate]


@dataclass(frozen=True, slots=True)
class Extent:
    """How far an evaluation came, and at what cost. `limit` is that of the budget which ended it, or empty.

    `cut_tasks` had begun and were left out. `dollars` is None without prices. What was `spent` before a
    resume is in it.
    """

    planned_tasks: int
    cut_tasks: int
    limit: str
    spent: Spent
    dollars: float | None

    @classmethod
    def of(cls, budget: Budget, meter: Meter, *, planned_tasks: int) -> Extent:
        """What the meter says at the end."""
        return cls(planned_tasks, len(meter.cut_tasks), meter.limit, meter.spent, budget.cost(meter.spent))


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an evaluation. `overall` is `None` when no episode was valid; `by_tag` has the tags of tasks.

    `turns`, `tool_calls` and `tool_errors` are means per valid episode; `tokens` are those sampled in valid episodes.
    `extent` is there when an evaluation made it; `tool_metrics` are those of the run's tool cache, if it was of use.
    """

    overall: Score | None
    by_tag: Mapping[str, Score]
    tasks: int
    episodes: int
    failures: Mapping[str, int]
    stop_reasons: Mapping[str, int]
    turns: float
    tool_calls: float
    tool_errors: float
    tokens: int
    tokens_per_s: float
    wall_s: float
    extent: Extent | None = None
    tool_metrics: Mapping[str, float] = field(default_factory=dict[str, float])

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries, fields by name; an estimate is `{"value": ..., "low": ..., "high": ...}`."""
        return dataclasses.asdict(self)


def summarize(
    groups: Sequence[Group], *, wall_s: float, success_threshold: float = 1.0, interval: IntervalMethod = "analytic"
) -> Report:
    """Score finished groups. An episode succeeds when its reward reaches `success_threshold` (to 1e-9)."""
    episodes = [episode for group in groups for episode in group.trajectories]
    valid = [episode for episode in episodes if episode.failure is None]
    tags = sorted({tag for group in groups for tag in group.task.tags})
    by_tag = {tag: _score([g for g in groups if tag in g.task.tags], success_threshold, interval) for tag in tags}
    tokens = sum(episode.sampled_tokens for episode in valid)
    return Report(
        overall=_score(groups, success_threshold, interval),
        by_tag={tag: score for tag, score in by_tag.items() if score is not None},
        tasks=len(groups),
        episodes=len(episodes),
        failures=_counts([str(e.failure.owner) for e in episodes if e.failure is not None]),
        stop_reasons=_counts([str(e.stop_reason) for e in valid]),
        turns=_mean(valid, lambda e: e.steps),
        tool_calls=_mean(valid, lambda e: sum(len(turn.tool_results) for turn in e.turns)),
        tool_errors=_mean(valid, lambda e: sum(r.error is not None for turn in e.turns for r in turn.tool_results)),
        tokens=tokens,
        tokens_per_s=tokens / wall_s,
        wall_s=wall_s,
    )


def succeeds(reward: float, threshold: float) -> bool:
    """Whether an episode with this reward succeeds; sums of rewards may miss the threshold by 1e-9."""
    return reward >= threshold - 1e-9


def _score(groups: Sequence[Group], threshold: float, interval: IntervalMethod) -> Score | None:
    rewards = [np.array([episode.reward for episode in group.valid]) for group in groups if group.valid]
    if not rewards:
        return None
    samples = [len(task_rewards) for task_rewards in rewards]
    successes = [sum(succeeds(reward, threshold) for reward in task_rewards) for task_rewards in rewards]
    share: Callable[[Values], Estimate] = statistics.proportion if interval == "analytic" else statistics.bootstrap
    mean: Callable[[Values], Estimate] = statistics.mean if interval == "analytic" else statistics.bootstrap

    def at(k: int, per_task: Callable[[Sequence[int], Sequence[int], int], Values]) -> Estimate:
        enough = [(c, n) for c, n in zip(successes, samples, strict=True) if n >= k]
        return share(per_task([c for c, _ in enough], [n for _, n in enough], k))

    powers = [2**i for i in range(max(samples).bit_length())]
    return Score(
        tasks=len(rewards),
        episodes=sum(samples),
        success=at(1, statistics.pass_at_k),
        reward=mean(np.array([task_rewards.mean() for task_rewards in rewards])),
        pass_at={k: at(k, statistics.pass_at_k) for k in powers},
        pass_hat={k: at(k, statistics.pass_hat_k) for k in powers},
    )


def _counts(names: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _mean(episodes: Sequence[Trajectory], value: Callable[[Trajectory], float]) -> float:
    return float(np.mean([value(episode) for episode in episodes])) if episodes else 0.0


# --- rendering ------------------------------------------------------------------------------------------------------


def to_table(reports: Mapping[str, Report], title: str = "") -> Table:
    """Reports side by side, one column each, under their names; scores with their 95% intervals below."""
    columns = [dict(_rows(report)) for report in reports.values()]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    caption = "Means per episode. Below a score: its 95 percent interval."
    table = Table(title=Text(title) if title else None, caption=caption, box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    for name in reports:
        table.add_column(Text(name), justify="right")
    for label in labels:
        table.add_row(Text(label), *(Text(column.get(label, "")) for column in columns))
    return table


def _rows(report: Report) -> list[tuple[str, str]]:
    """Labels and texts, in the order of the table."""
    rows: list[tuple[str, str]] = _stopped(report)
    if report.overall is not None:
        rows.append(("success", to_cell(report.overall.success, percent=True)))
    rows += [(f"  {tag}", to_cell(score.success, percent=True)) for tag, score in report.by_tag.items()]
    if report.overall is not None:
        at, hat = report.overall.pass_at, report.overall.pass_hat
        rows += [(f"pass@{k}", to_cell(estimate, percent=True)) for k, estimate in at.items() if k > 1]
        rows += [(f"pass^{k}", to_cell(estimate, percent=True)) for k, estimate in hat.items() if k > 1]
        rows.append(("mean reward", to_cell(report.overall.reward)))
    if "cache_hit_rate" in report.tool_metrics:
        rows.append(("tool cache hits", f"{report.tool_metrics['cache_hit_rate']:.1%}"))
        rows.append(("  time saved", f"{report.tool_metrics['cache_saved_s']:.1f} s"))
    failed = sum(report.failures.values())
    rows += [
        ("turns", f"{report.turns:.1f}"),
        ("tool errors", f"{report.tool_errors:.2f}"),
        ("tokens per s", f"{report.tokens_per_s:,.0f}"),
        ("wall time", f"{report.wall_s:.1f} s"),
        ("episodes", f"{report.tasks} x {report.episodes / max(1, report.tasks):g}"),
        ("failures", str(failed)),
    ]
    rows += [(f"  of the {owner}", str(count)) for owner, count in report.failures.items()]
    return rows + _cost(report)


def _stopped(report: Report) -> list[tuple[str, str]]:
    """What a reader must know before the score: that it is of a part of the tasks."""
    extent = report.extent
    if extent is None or not extent.limit:
        return []
    rows = [
        ("tasks within the budget", f"{report.tasks} of {extent.planned_tasks}"),
        ("  limited by", extent.limit),
    ]
    return rows + ([("  begun and cut", str(extent.cut_tasks))] if extent.cut_tasks else [])


def _cost(report: Report) -> list[tuple[str, str]]:
    extent = report.extent
    if extent is None or not extent.spent.tokens:
        return []
    rows = [
        ("prompt tokens", f"{extent.spent.prompt_tokens:,}"),
        ("sampled tokens", f"{extent.spent.sampled_tokens:,}"),
    ]
    return rows + ([] if extent.dollars is None else [("cost", f"${extent.dollars:,.4f}")])


def to_cell(estimate: Estimate | None, *, percent: bool = False) -> str:
    """A score with its interval below."""
    if estimate is None:
        return "-"
    if percent:
        return f"{estimate.value:.1%}\n{100 * estimate.low:.1f} - {100 * estimate.high:.1f}"
    return f"{estimate.value:.3f}\n{estimate.low:.3f} - {estimate.high:.3f}"
