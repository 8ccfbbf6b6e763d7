"""Run a policy, or a reference agent, over held-out tasks and score it. The same rollout code as in training.

Knows how to set an evaluation up. Who acts is in `actor`, what the scores are in `report`, how their intervals come
about in `statistics`, and what may be used up in `budget`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio

from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.evaluate.actor import Actor, open_actor
from agent_rl.evaluate.budget import Budget, Meter, read_spent, write_spent
from agent_rl.evaluate.eval_config import EvalConfig
from agent_rl.evaluate.report import Extent, IntervalMethod, Report, summarize
from agent_rl.registry import environment_spec
from agent_rl.rollout.agent import MakeAgent
from agent_rl.rollout.episode import EnvironmentFactory, run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.manager import run_tasks
from agent_rl.store.disk import told_when_full
from agent_rl.store.journal import Journal
from agent_rl.store.opening import create_journal
from agent_rl.store.run_folder import REPORT, open_run
from agent_rl.store.tasks import read_tasks
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import TokenEnds, tool_services
from agent_rl.types import Group, Task

SPENT = "spent.json"
_NO_LIMITS = RolloutLimits()
_NO_BUDGET = Budget()


async def evaluate(
    environment: EnvironmentFactory,
    tasks: Sequence[Task],
    make_agent: MakeAgent,
    *,
    limits: RolloutLimits = _NO_LIMITS,
    samples: int = 1,
    seed: int = 0,
    concurrency: int = 64,
    max_attempts: int = 3,
    success_threshold: float = 1.0,
    interval: IntervalMethod = "analytic",
    budget: Budget = _NO_BUDGET,
    on_group: Callable[[Group], object] = lambda group: None,
    tools: ToolsConfig | None = None,
    token_ends: TokenEnds | None = None,
    journal: Journal | None = None,
    ledger: Path | None = None,
) -> Report:
    """Play `samples` episodes of every task and score them. `on_group` sees each task's episodes when they are done.

    With a `journal` each task's episodes are durable before `on_group` sees them. Those that it holds are not played
    again: `on_group` sees them first, and they are scored like the others (`wall_s` is that of this call). Beside it,
    `ledger` is the file that keeps what they cost. When the `budget` is used up, what is finished is scored.
    `token_ends`, such as a codec's `ends`, measures tool outputs where they are limited in tokens.

    Episodes that end in an infrastructure failure are tried `max_attempts` times, then excluded and counted, never
    scored as 0. The same seed plays the same episodes on a deterministic engine, for any concurrency.
    """
    finished = {} if journal is None else await anyio.to_thread.run_sync(journal.load_groups)
    _check_same(finished, tasks)
    for group in finished.values():
        on_group(group)
    meter = Meter(budget, None if ledger is None else read_spent(ledger))
    journal_turn = anyio.Lock()

    def record(group: Group) -> None:
        if journal is not None:
            journal.append_group(group)
        if ledger is not None:
            write_spent(ledger, meter.spent)

    async def keep(group: Group) -> None:
        if meter.complete(group):
            async with journal_turn:
                await anyio.to_thread.run_sync(record, group)
            on_group(group)

    began = time.perf_counter()
    try:
        async with tool_services(tools or ToolsConfig(), token_ends) as lent:
            groups = await run_tasks(
                meter.episodes(partial(run_episode, environment, meter.agents(make_agent), limits=limits)),
                tasks,
                group_size=samples,
                seed=seed,
                max_concurrent_episodes=concurrency,
                max_attempts=max_attempts,
                finished=finished,
                on_group=keep,
            )
    finally:
        if ledger is not None:
            write_spent(ledger, meter.spent)
    wall_s = time.perf_counter() - began
    played = [group for group in groups if meter.complete(group)]
    report = summarize(played, wall_s=wall_s, success_threshold=success_threshold, interval=interval)
    extent = Extent.of(budget, meter, planned_tasks=len(tasks))
    return replace(report, extent=extent, tool_metrics=lent.cache.metrics() if lent.cache else {})


def _check_same(finished: Mapping[int, Group], tasks: Sequence[Task]) -> None:
    for index, group in finished.items():
        if index >= len(tasks) or group.task.id != tasks[index].id:
            raise UserError(
                f"Task {group.task.id!r} of the folder is not among those to play: the environment's tasks have "
                "changed. Evaluate in a new folder."
            )


def run(config: EvalConfig, on_group: Callable[[Group], object] = lambda group: None) -> Report:
    """What `agent-rl eval` does: find the environment, load the model, evaluate, keep what was asked for.

    Raises `UserError` for an unknown environment, split or option, and for a model that cannot be used.
    """
    environment = environment_spec(config.environment, config.environment_options)
    with open_kept(config, environment) as kept:
        return anyio.run(_run, config, environment, kept, on_group)


async def _run(
    config: EvalConfig, environment: EnvironmentSpec, kept: Kept | None, on_group: Callable[[Group], object]
) -> Report:
    tasks = tasks_of(config, environment)
    async with open_actor(config, config.limits.max_context_tokens) as actor:
        return await play(config, environment, tasks, actor, kept, on_group)


class Kept(NamedTuple):
    """Where an evaluation is kept, owned by this process."""

    folder: Path
    journal: Journal


@contextmanager
def open_kept(config: EvalConfig, environment: EnvironmentSpec) -> Generator[Kept | None]:
    """The place that the config names, made or found; None if it names none.

    Raises `UserError` when the folder is in use, or that of another config.
    """
    if config.run_dir is None:
        yield None
        return
    with (
        open_run(config, "eval", config.run_dir, resume=config.resume, free=config.free) as folder,
        told_when_full(folder),
        create_journal(
            folder, store=config.store, config=config, environment=environment, timeout_s=config.store_timeout_s
        ) as journal,
    ):
        journal.set_aside_damaged(folder)
        yield Kept(folder, journal)


def tasks_of(config: EvalConfig, environment: EnvironmentSpec) -> Sequence[Task]:
    """The tasks that the config names. Raises `UserError` for an unknown split or a file without tasks."""
    if config.task_file is not None:
        return read_tasks(config.task_file)[: config.tasks]
    return environment.tasks(config.split, config.tasks, config.seed)


async def play(
    config: EvalConfig,
    environment: EnvironmentSpec,
    tasks: Sequence[Task],
    actor: Actor,
    kept: Kept | None,
    on_group: Callable[[Group], object],
) -> Report:
    """`evaluate` as the config says, with the journal, the ledger and the report in their place, if there is one."""
    evaluation = partial(
        evaluate,
        environment,
        tasks,
        actor.make_agent,
        limits=actor.fitted(config.limits),
        samples=config.samples,
        seed=config.seed,
        concurrency=config.concurrency,
        max_attempts=config.max_attempts,
        success_threshold=config.success_threshold,
        interval=config.interval,
        budget=config.budget,
        on_group=on_group,
        tools=config.tools,
        token_ends=actor.token_ends,
    )
    if kept is None:
        return await evaluation()
    report = await evaluation(journal=kept.journal, ledger=kept.folder / SPENT)
    (kept.folder / REPORT).write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    return report
