"""What comparisons of training methods have in common: one start, the same seeds, curves, samples to a target.

A recipe that compares is a config, an environment and this. Every run has a folder in that of the comparison, called
after its method and its seed; what is finished there is not run again, so seeds and methods can be added.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
import torch
from pydantic import Field
from rich.console import Console

from agent_rl.config import Config
from agent_rl.curriculum import shuffled_epochs
from agent_rl.environment import EnvironmentSpec
from agent_rl.evaluate.comparison import (
    Curve,
    Samples,
    draw_curves,
    read_curve,
    samples_report,
    samples_table,
    samples_to,
)
from agent_rl.progress import training_progress
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.starting_policy import START, Imitation, starting_policy
from agent_rl.store.metrics import JSONL
from agent_rl.store.run_folder import REPORT, open_run
from agent_rl.train import train
from agent_rl.train_config import TrainConfig
from agent_rl.warm_start import WarmStartConfig

_FREE = ("run_dir", "resume", "methods", "seeds", "picture", "target", "window")  # what may differ on resume
_SHARED_SEED = 0  # of the start and of the tasks, which are those of all runs

TrainRun: TypeAlias = Callable[[TrainConfig, Path], Awaitable[None]]
"""Trains in a folder, where an earlier attempt may have got somewhere."""


class ComparisonConfig(Config):
    """Options of every comparison. A recipe says which `methods` there are, and adds the options of each."""

    methods: tuple[str, ...] = Field(description="What is compared.")
    seeds: int = Field(default=5, ge=1, description="Runs of each method, with the seeds 0, 1, ... after its own.")
    hidden_size: int = Field(default=32, ge=32, description="Width of the tiny policy.")
    warm_start: WarmStartConfig = Field(
        default_factory=WarmStartConfig,
        description="Imitation of an agent that moves at random, from which all runs start.",
    )
    target: float = Field(default=0.8, gt=0, le=1, description="Success that counts as having learnt the task.")
    window: int = Field(default=5, ge=1, description="Steps over which success is averaged.")
    run_dir: Path | None = Field(default=None, description="The folder; none: a new one under runs/.")
    resume: bool = Field(default=False, description="Go on in run_dir, or in the latest folder.")
    picture: Path | None = Field(default=None, description="Where the learning curves go; none: into the folder.")


def compare(
    config: ComparisonConfig,
    name: str,
    environment: EnvironmentSpec,
    methods: Mapping[str, TrainConfig],
    *,
    limits: RolloutLimits,
    vocabulary: Sequence[str] = (),
) -> dict[str, Samples]:
    """Run what is not finished of the comparison called `name`, then write `report.json`, draw the curves and print the
    table; returns what each method needed. `methods` are the options of all methods that `config.methods` may name.

    All runs start from one tiny policy, which has imitated the environment's random agent under `limits`; `vocabulary`
    are words that its tokenizer keeps whole. Raises `UserError` for what cannot be run.
    """
    torch.set_num_threads(1)  # more do not make a tiny policy faster
    console, chosen = Console(), {method: methods[method] for method in config.methods}
    with open_run(config, name, config.run_dir, resume=config.resume, free=_FREE) as folder:

        async def run() -> dict[str, list[Curve]]:
            imitation = Imitation(environment, config.warm_start, limits, _SHARED_SEED)
            await starting_policy(imitation, folder, console, hidden_size=config.hidden_size, vocabulary=vocabulary)
            train_run = partial(_train, environment=environment, start=folder / START, console=console)
            return await run_all(chosen, config.seeds, folder, train_run)

        return conclude(anyio.run(run), config, folder, config.picture or folder / f"{name}.svg", console)


async def run_all(
    methods: Mapping[str, TrainConfig], seeds: int, folder: Path, train_run: TrainRun
) -> dict[str, list[Curve]]:
    """The curves of all runs, by method and in the order of seeds; those that are not finished are trained first."""
    curves: dict[str, list[Curve]] = {name: [] for name in methods}
    for name, options in planned(methods, seeds):
        run_dir = folder / f"{name}-{options.seed}"
        if not is_finished(run_dir, options.steps):
            await train_run(options, run_dir)
        curves[name].append(read_curve(run_dir / JSONL))
    return curves


def planned(methods: Mapping[str, TrainConfig], seeds: int) -> Iterator[tuple[str, TrainConfig]]:
    """Every run as method and options, all methods of one seed first: an interrupted comparison is a fair one."""
    for seed in range(seeds):
        for name, options in methods.items():
            yield name, options.model_copy(update={"seed": options.seed + seed})


def is_finished(run_dir: Path, steps: int) -> bool:
    """Whether the run has the metrics of all its steps."""
    metrics = run_dir / JSONL
    return metrics.is_file() and len(metrics.read_text(encoding="utf-8").splitlines()) >= steps


def conclude(
    curves: Mapping[str, Sequence[Curve]], config: ComparisonConfig, folder: Path, picture: Path, console: Console
) -> dict[str, Samples]:
    """Write, draw and print what the curves say; returns the samples that each method needed."""
    draw_curves(curves, picture, target=config.target, window=config.window)
    samples = {name: samples_to(runs, config.target, config.window) for name, runs in curves.items()}
    report = samples_report(samples, config.target, config.window)
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(samples_table(samples, config.target), f"The curves are in {picture}.")
    return samples


async def _train(
    options: TrainConfig, run_dir: Path, *, environment: EnvironmentSpec, start: Path, console: Console
) -> None:
    """All runs train on the same tasks, each in an order of its own."""
    from agent_rl.learner.policy import load_policy

    model, tokenizer = load_policy(start)
    tasks = environment.tasks("train", options.steps * options.groups_per_batch, _SHARED_SEED)
    with training_progress(console, options.steps, run_dir.name) as on_step:
        await train(
            options,
            run_dir=run_dir,
            model=model,
            tokenizer=tokenizer,
            environment=environment,
            task_at=shuffled_epochs(tasks, options.seed),
            resume=True,
            on_step=on_step,
        )
