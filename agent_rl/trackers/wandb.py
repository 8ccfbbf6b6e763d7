"""A Weights & Biases run that goes on when the training run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_rl.trackers import OpenTracker, TrackedRun, Tracker, needs
from agent_rl.trackers.config import WandbConfig

STEP = "step"


def open_wandb(config: WandbConfig) -> OpenTracker:
    """The tracker of a run. The package's own variables (WANDB_MODE, WANDB_BASE_URL, ...) are heeded."""
    wandb = needs("wandb", "wandb", "Weights & Biases")

    def start(run: TrackedRun) -> Tracker:
        return _Wandb(
            wandb.init(
                project=config.project,
                entity=config.entity,
                group=config.group,
                tags=config.tags,
                id=run.remembered("wandb"),
                resume="allow",
                name=run.run_dir.name,
                dir=str(run.run_dir),
                config=dict(run.config),
                reinit="create_new",
            )
        )

    return start


class _Wandb:
    """Steps are a metric of their own: W&B refuses its built-in step for steps that a resumed run does again."""

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({STEP: step, **metrics})

    def close(self) -> None:
        self._run.finish()
