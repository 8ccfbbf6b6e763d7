"""Training steps of the quickstart's warm-started policy, for benchmarks that compare how long they take."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from agent_rl.curriculum import shuffled_epochs
from agent_rl.learner.policy import load_policy
from agent_rl.site import Site, ThisProcess
from agent_rl.train import train
from agent_rl_envs.sql_lookup import SqlLookup, SqlLookupConfig

SKIPPED = 2  # steps, while processes and queues warm up


def steps_of(config: Any, start: Path, site: Site | None = None, environment: Any = None) -> list[dict[str, float]]:
    """The metrics of each step of a run."""
    model, tokenizer = load_policy(start, dtype=config.dtype)
    options = SqlLookupConfig(two_query_share=config.two_query_share)
    tasks = SqlLookup.tasks("train", config.steps * config.groups_per_batch, config.seed, options)
    with tempfile.TemporaryDirectory() as folder:
        run = partial(
            train,
            config,
            run_dir=Path(folder),
            model=model,
            tokenizer=tokenizer,
            environment=environment or (lambda task: SqlLookup()),
            task_at=shuffled_epochs(tasks, config.seed),
            site=site or ThisProcess(),
        )
        anyio.run(run)
        return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def step_s(steps: list[dict[str, float]]) -> float:
    """The mean: steps that overlap with rollouts are long and short in turn."""
    return (steps[-1]["time_s"] - steps[SKIPPED - 1]["time_s"]) / (len(steps) - SKIPPED)
