"""Choose tasks by how much they drove a run that has been: those whose success rose as the mean of all tasks rose.

Learning impact measurement: LIMR (arXiv:2502.11886), and lim_selection.py of its code. Knows journals and files of
tasks; plays nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sqlalchemy import select

from agent_rl.config import Config
from agent_rl.errors import ConfigError
from agent_rl.evaluate.report import succeeds
from agent_rl.store import schema
from agent_rl.store.journal import Journal
from agent_rl.store.opening import open_journal
from agent_rl.store.records import task_from_json
from agent_rl.store.tasks import write_tasks
from agent_rl.types import Task

Curves = NDArray[np.float64]
"""Success of N tasks in K epochs, shape (N, K); NaN where no episode counted."""


class ImpactConfig(Config):
    """Keep the tasks of a finished run that learned with it, and write them to a file for `--task-file`."""

    run: Path = Field(description="The run's folder.")
    output: Path = Field(description="The file of kept tasks (.jsonl).")
    min_impact: float = Field(default=0.6, le=1, description="Tasks that align less with the mean curve are left out.")
    epochs: int | None = Field(
        default=None,
        ge=2,
        description="Visits of a task that count; tasks with fewer are left out. None: all have them.",
    )
    success_threshold: float = Field(default=1.0, description="An episode succeeds when its reward reaches this.")
    store: str = Field(default="", description="URL of the run's PostgreSQL with its password, where that is needed.")


@dataclass(frozen=True, slots=True, eq=False)
class Visited:
    """A task and, for each group that played it, in order, the share of valid episodes that succeeded (NaN: none)."""

    task: Task
    success: Sequence[float]


def filled(curves_NK: Curves) -> Curves:
    """An epoch in which no episode counted has the value of the next one, if that has one."""
    first_NK, next_NK = curves_NK[:, :-1], curves_NK[:, 1:]
    return np.hstack([np.where(np.isnan(first_NK), next_NK, first_NK), curves_NK[:, -1:]])


def impacts(curves_NK: Curves) -> NDArray[np.float64]:
    """s_i = 1 - sum_k (r_ik - m_k)^2 / sum_k (1 - m_k)^2 with m_k the mean over tasks. At most 1.

    0 is how a task that is always solved aligns. Raises `ConfigError` when all are, or there is none.
    """
    if not len(curves_NK):
        raise ConfigError("No task has an episode that counts in its last epoch: there is nothing to measure.")
    mean_K = curves_NK.mean(axis=0)
    always = float(((1 - mean_K) ** 2).sum())
    if not always:
        raise ConfigError("Every task is solved in every epoch: there is nothing to align with.")
    return 1 - ((curves_NK - mean_K) ** 2).sum(axis=1) / always


def visits(journal: Journal, threshold: float) -> list[Visited]:
    """The tasks that a run has played, in the order of their first visits."""
    groups = schema.groups.c
    texts: Mapping[int, str] = dict(
        journal.rows(select(groups.index, groups.task).where(groups.run == journal.run).order_by(groups.index))
    )
    wins: defaultdict[int, list[bool]] = defaultdict(list)
    for score in journal.scores():
        if score.failure_owner is None:
            wins[score.group_index].append(score.reward is not None and succeeds(score.reward, threshold))
    found: dict[tuple[str, str], tuple[Task, list[float]]] = {}
    for index, text in texts.items():
        task = task_from_json(text)
        success = float(np.mean(wins[index])) if wins[index] else float("nan")
        found.setdefault((task.environment, task.id), (task, []))[1].append(success)
    return [Visited(task, success) for task, success in found.values()]


def measured(tasks: Sequence[Visited], epochs: int | None) -> list[tuple[Task, float]]:
    """The impact of each task that was visited often enough. Raises `ConfigError` when there is nothing to compare."""
    epochs = epochs or min((len(visited.success) for visited in tasks), default=0)
    often = [visited for visited in tasks if len(visited.success) >= epochs]
    if epochs < 2 or not often:
        raise ConfigError(
            f"{len(often)} tasks were played {epochs} times: a curve needs two visits, so set epochs (tasks that were "
            "played less are left out), or train longer."
        )
    curves_NK = filled(np.array([visited.success[:epochs] for visited in often]))
    known = np.flatnonzero(np.isfinite(curves_NK).all(axis=1)).tolist()
    return [(often[i].task, impact) for i, impact in zip(known, impacts(curves_NK[known]).tolist(), strict=True)]


def select_by_impact(config: ImpactConfig) -> tuple[int, int, int]:
    """Write `config.output`; how many tasks were kept, aligned too little, and were not measured.

    Raises `UserError` when the file exists or the journal cannot be read.
    """
    if config.output.exists():
        raise ConfigError(f"{config.output} exists already: name another file, or remove it.")
    with open_journal(config.run, store=config.store, read_only=True) as journal:
        tasks = visits(journal, config.success_threshold)
    found = measured(tasks, config.epochs)
    kept = [task for task, impact in found if impact >= config.min_impact]
    write_tasks(config.output, kept)
    return len(kept), len(found) - len(kept), len(tasks) - len(found)
