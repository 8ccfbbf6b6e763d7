"""What Ray costs on one machine, what a second rollout worker brings, and how many bytes new weights take.

    agent-rl train quickstart --run-dir runs/mine
    python benchmarks/cluster.py runs/mine

The same training steps of the warm-started quickstart, in one process and on a Ray of one node with a rollout worker
and a learner rank, in turn: the mean step of each run, after the first two (goal: at most 1.15). Where a second core is
free, two processes may beat two threads. Then episodes of an environment whose two steps take 0.5 s each, in workers
with 8 places: two workers against one (goal 1.9, limit 2). Last, the bytes of weights that Ray carried, by those of
all weights, in bf16 at the learning rate of large models (goal: 10%).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from quickstart_steps import step_s, steps_of
from rich.console import Console
from rich.table import Table

from agent_rl.cli import load_recipe
from agent_rl.cluster.connect import connected
from agent_rl.cluster.site import ClusterSite
from agent_rl.cluster_config import ClusterConfig
from agent_rl.config import load_config
from agent_rl.environment import Environment
from agent_rl.site import Site, ThisProcess
from agent_rl.types import Message, Step, Task

TOOL_S, PLACES, GROUP_SIZE, GROUPS = 0.5, 8, 8, 8
LARGE_MODELS = 1e-6  # learning rate


class Slow(Environment):
    """Two steps of `TOOL_S` each."""

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> list[Task]:
        return [Task(f"slow-{number}", (Message("user", "go on"),)) for number in range(count)]

    async def reset(self, task: Task, seed: int) -> tuple[Message, ...]:
        self._steps = 0
        return task.prompt

    async def step(self, action: Message) -> Step:
        await anyio.sleep(TOOL_S)
        self._steps += 1
        return Step((Message("user", "go on"),), float(len(action.content) % 2), terminated=self._steps == 2)


def overhead(config: Any, start: Path, rounds: int) -> None:
    sites: dict[str, Site] = {"one process": ThisProcess(), "on Ray": ClusterSite(ClusterConfig())}
    found: dict[str, list[float]] = {name: [] for name in sites}
    for _ in range(rounds):
        for name, site in sites.items():
            found[name].append(step_s(steps_of(config, start, site)))
    here, there = found.values()
    table = Table("", "mean step, of each run")
    for name, seconds in found.items():
        table.add_row(name, ", ".join(f"{s:.2f} s" for s in seconds))
    Console().print(table)
    ratios = sorted(b / a for a, b in zip(here, there, strict=True))
    print(
        f"On Ray a step takes {np.median(ratios):.2f} times as long ({ratios[0]:.2f} - {ratios[-1]:.2f}; goal: at most "
        f"1.15), {rounds} runs of {config.steps} steps each."
    )


def second_worker(config: Any, start: Path) -> None:
    update = {"groups_per_batch": GROUPS, "group_size": GROUP_SIZE, "max_staleness": 0, "steps": 4}
    config = config.model_copy(update=update)
    rates = []
    for workers in (1, 2):
        site = ClusterSite(ClusterConfig(rollout_workers=workers, episodes_per_worker=PLACES))
        rollout_s = [step["time/rollout_wait_s"] for step in steps_of(config, start, site, lambda task: Slow())]
        rates.append(GROUPS * GROUP_SIZE / float(np.median(rollout_s[1:])))
    limit = PLACES / (2 * TOOL_S)
    print(
        f"{rates[0]:.2f} episodes/s with one worker (limit {limit:.2f}), {rates[1]:.2f} with two: "
        f"{rates[1] / rates[0]:.2f} times as many (goal 1.9, limit 2)."
    )


def weights(config: Any, start: Path) -> None:
    learner = config.learner.model_copy(update={"learning_rate": LARGE_MODELS})
    config = config.model_copy(update={"learner": learner, "dtype": "bfloat16", "steps": 6})
    shares = [step["cluster/weights_sent_share"] for step in steps_of(config, start, ClusterSite(ClusterConfig()))]
    print(f"Weights, bf16, at {LARGE_MODELS:.0e}: {np.mean(shares[1:]):.1%} of all bytes a step were sent (goal: 10%).")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="folder of a quickstart run, for its warm-started policy")
    parser.add_argument("--steps", type=int, default=30, help="training steps of a run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
    options = parser.parse_args()
    recipe, start = load_recipe("quickstart"), options.run_dir / "start"
    config: Any = load_config(recipe.config, options.run_dir / "config.json")
    config = config.model_copy(update={"steps": options.steps})
    began = time.perf_counter()
    with connected(ClusterConfig(rollout_workers=2)):
        print(f"Ray was up after {time.perf_counter() - began:.1f} s.")
        second_worker(config, start)
        weights(config, start)
        overhead(config, start, options.rounds)


if __name__ == "__main__":
    main()
