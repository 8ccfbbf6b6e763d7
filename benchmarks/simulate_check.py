"""Is the simulator right? It predicts runs from parts that were measured apart; then the runs are made.

    agent-rl train quickstart --run-dir runs/mine
    python benchmarks/simulate_check.py runs/mine

Measured apart: how long a decode step of the local engine takes, and reading a prompt; the processor time of the event
loop for a turn, from episodes that are played without waits; what the learner took for its tokens in the finished run.
Then training goes on with a learning rate of almost nothing, so that the policy stays as it was measured, and with
tools that take a while (log-normal, median 0.3 s): the mean step, predicted (with its range over eight draws) and real
(goal: within 15%), for several bounds of staleness. One process has the engine, the environments and the learner on the
same cores, which the simulation does not know; the more time is spent waiting, the less it matters.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from quickstart_steps import step_s, steps_of
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agent_rl.chat.codec import ChatCodec
from agent_rl.cli import load_recipe
from agent_rl.config import load_config
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.local import LocalEngine
from agent_rl.environment import Environment
from agent_rl.evaluate.harness import evaluate
from agent_rl.learner.policy import load_policy
from agent_rl.rollout.agent import PolicyAgent
from agent_rl.seeding import stream
from agent_rl.testing.simulate import Episode, Machine, Schedule, measured, simulate
from agent_rl.types import Group, Message, SamplingParams, Step, Task
from agent_rl.wrapper import EnvironmentWrapper
from agent_rl_envs.sql_lookup import SqlLookup, SqlLookupConfig

MEDIAN_S, SIGMA = 0.3, 0.5
GROUPS, GROUP_SIZE, STALENESS = 8, 8, (0, 1, 2)


def waits(rng: np.random.Generator) -> float:
    return float(rng.lognormal(np.log(MEDIAN_S), SIGMA))


class Waiting(EnvironmentWrapper):
    """Tools that take a while."""

    rng = stream(1, "real waits")

    async def step(self, action: Message) -> Step:
        await anyio.sleep(waits(self.rng))
        return await super().step(action)


def slow(task: Task) -> Environment:
    return Waiting(SqlLookup())


async def generation_s(engine: LocalEngine, count: int, prompt: int, tokens: int) -> float:
    """Seconds until so many sequences are sampled, the least of several times."""
    seconds = []
    for attempt in range(5):
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                ids = stream(attempt, number).integers(1, 200, prompt)
                session = f"{attempt} {number}"
                request = GenerationRequest(session, ids, SamplingParams(max_tokens=tokens), number)
                tasks.start_soon(engine.generate, request)
        for number in range(count):
            await engine.release(f"{attempt} {number}")
        seconds.append(time.perf_counter() - began)
    return min(seconds)


async def engine_costs(model: PreTrainedModel, slots: int, context: int) -> dict[str, float]:
    """The parameters of a `Machine` that are the engine's."""
    async with LocalEngine(model, max_batch=slots, max_context=context) as engine:
        few, many = [(await generation_s(engine, count, 16, 33) - await generation_s(engine, count, 16, 1)) / 32
                     for count in (1, slots)]  # fmt: skip
        long, short = [await generation_s(engine, slots, prompt, 1) for prompt in (96, 16)]
    sequence_s = max(0.0, (many - few) / (slots - 1))
    return {
        "step_s": max(few - sequence_s, 0.0),
        "sequence_s": sequence_s,
        "read_s": max(0.0, (long - short) / (slots * 80)),
    }


async def episodes_and_host_s(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task], config: Any
) -> tuple[list[Episode], float]:
    """Episodes of the policy without waits, and the event loop's processor time for one of their turns."""
    codec, groups, slots = ChatCodec(tokenizer), list[Group](), GROUPS * GROUP_SIZE
    async with LocalEngine(model, max_batch=slots, max_context=config.limits.max_context_tokens) as engine:
        began = time.thread_time()
        await evaluate(
            lambda task: SqlLookup(),
            tasks,
            lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key),
            samples=GROUP_SIZE,
            concurrency=slots,
            limits=config.limits,
            on_group=groups.append,
        )
        spent_s = time.thread_time() - began
    episodes = measured(groups)
    return episodes, spent_s / sum(len(episode.turns) for episode in episodes)


def with_waits(episode: Episode, rng: np.random.Generator) -> Episode:
    """As it will be: with tools that wait, and a first prompt that siblings read once."""
    first, *others = (turn._replace(tool_s=waits(rng)) for turn in episode.turns)
    first = first._replace(read=first.read // GROUP_SIZE)
    return replace(episode, setup_s=0.0, turns=(first, *others))


def machine_of(folder: Path, config: Any, tasks: Sequence[Task]) -> tuple[Machine, list[Episode]]:
    """What this machine can do, and episodes of the policy."""
    model, tokenizer = load_policy(folder / "start")
    slots = GROUPS * GROUP_SIZE
    costs = anyio.run(engine_costs, model, slots, config.limits.max_context_tokens)
    episodes, host_s = anyio.run(episodes_and_host_s, model, tokenizer, tasks, config)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    learn_s, update_s = (
        float(np.median([row[name] for row in rows])) for name in ("time/learn_s", "time/update_weights_s")
    )
    trained = config.groups_per_batch * config.group_size * float(np.mean([e.trained_tokens for e in episodes]))
    machine = Machine(
        replicas=1, slots=slots, learner_tokens_per_s=trained / learn_s, update_s=update_s, host_s=host_s, **costs
    )
    rng = stream(2, "predicted waits")
    return machine, [with_waits(episode, rng) for episode in episodes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="folder of a finished quickstart run")
    parser.add_argument("--steps", type=int, default=42, help="training steps of a run")
    options = parser.parse_args()
    recipe = load_recipe("quickstart")
    config: Any = load_config(recipe.config, options.run_dir / "config.json")
    tasks = SqlLookup.tasks("train", 64, 0, SqlLookupConfig(two_query_share=config.two_query_share))
    machine, episodes = machine_of(options.run_dir, config, tasks)
    print(
        f"A decode step takes {1e3 * machine.step_s:.2f} ms and {1e3 * machine.sequence_s:.3f} ms a sequence, reading "
        f"{1e6 * machine.read_s:.0f} us a token, the event loop {1e3 * machine.host_s:.2f} ms a turn; the learner "
        f"takes {machine.learner_tokens_per_s:,.0f} tokens/s."
    )
    still = config.learner.model_copy(update={"learning_rate": 1e-9})  # the predicted episodes are this policy's
    table = Table(
        "max_staleness", "predicted step (of 8 draws)", "real step", "real / predicted", "engine busy", "host busy"
    )
    for staleness in STALENESS:
        at_once = GROUPS * GROUP_SIZE * (staleness + 1)
        schedule = Schedule(options.steps, GROUPS, GROUP_SIZE, staleness, at_once, config.overtake)
        seeds = [simulate(episodes, machine, replace(schedule, seed=seed)) for seed in range(8)]
        steps_s = sorted(found.step_s for found in seeds)
        predicted = float(np.mean(steps_s))
        update = {"max_staleness": staleness, "groups_per_batch": GROUPS, "group_size": GROUP_SIZE}
        update |= {"max_concurrent_episodes": at_once, "steps": options.steps, "learner": still}
        real = step_s(steps_of(config.model_copy(update=update), options.run_dir / "start", environment=slow))
        busy = f"{seeds[0].engine_busy:.0%}", f"{seeds[0].host_busy:.0%}"
        drawn = f"{predicted:.2f} s ({steps_s[0]:.2f} - {steps_s[-1]:.2f})"
        table.add_row(str(staleness), drawn, f"{real:.2f} s", f"{real / predicted:.2f}", *busy)
    Console().print(table)


if __name__ == "__main__":
    main()
