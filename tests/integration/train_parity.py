"""A training run small enough for tests; as a script it trains into a folder and may kill itself on the way.

python train_parity.py RUN_DIR STEPS [--resume] [--die-after-step N | --die-after-groups N]
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import torch

from agent_rl.curriculum.config import CurriculumConfig
from agent_rl.environment import Environment, EnvironmentSpec
from agent_rl.learner.config import LearnerConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.journal import Journal
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.train import Progress, train
from agent_rl.train_config import TrainConfig
from agent_rl.types import Message, Step, Task


class Parity(Environment):
    """Two turns of any text; an answer of even length is worth 1. Random policies get both rewards."""

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> list[Task]:
        return [Task(f"parity-{i}", (Message("user", f"say {i}"),), tags=(f"kind:{i % 2}",)) for i in range(count)]

    async def reset(self, task: Task, seed: int) -> tuple[Message, ...]:
        self._turns = 0
        return task.prompt

    async def step(self, action: Message) -> Step:
        self._turns += 1
        return Step((Message("user", "again"),), float(len(action.content) % 2 == 0), terminated=self._turns == 2)


def parity_config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "steps": 4,
        "groups_per_batch": 2,
        "group_size": 4,
        "max_concurrent_episodes": 8,
        "checkpoint_every": 2,
        "deterministic": True,
        "limits": RolloutLimits(max_turns=3, max_response_tokens=8, max_context_tokens=96),
        "learner": LearnerConfig(learning_rate=1e-3, token_budget=256),
    }
    return TrainConfig(**{**values, **changes})


async def train_parity(
    run_dir: Path,
    config: TrainConfig,
    environment: EnvironmentSpec | None = None,
    *,
    curriculum: CurriculumConfig | None = None,
    **options: Any,
) -> tuple[Progress, torch.nn.Module]:
    torch.set_num_threads(1)
    tokenizer = make_tokenizer(["say again 0123456789"], vocab_size=300)
    model = make_model(tokenizer, hidden_size=32, layers=1, heads=1, max_context=96)
    # Random weights rarely end a turn: make the end likely, so that responses are complete and rewards differ.
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.eos_token_id] *= 60
    progress = await train(
        config,
        run_dir=run_dir,
        model=model,
        tokenizer=tokenizer,
        environment=environment or (lambda task: Parity()),
        task_at=(curriculum or CurriculumConfig()).open(
            (environment or Parity).tasks("train", 5),
            seed=config.seed,
            group_size=config.group_size,
            least=2,
            limits=config.limits,
            success=1.0,
            change=lambda sampler: sampler,
        ),
        **options,
    )
    return progress, model


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-after-step", type=int)
    parser.add_argument("--die-after-groups", type=int)
    arguments = parser.parse_args()
    append, appended = Journal.append_group, 0

    def append_and_maybe_die(journal: Journal, group: Any) -> None:
        nonlocal appended
        append(journal, group)
        appended += 1
        if appended == arguments.die_after_groups:
            _die()

    Journal.append_group = append_and_maybe_die  # type: ignore[method-assign]
    anyio.run(
        functools.partial(
            train_parity,
            arguments.run_dir,
            parity_config(steps=arguments.steps),
            resume=arguments.resume,
            on_step=lambda report: _die() if report.step == arguments.die_after_step else None,
        )
    )


if __name__ == "__main__":
    main()
