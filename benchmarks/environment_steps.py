"""What a step of an environment costs on one core, beside the limit of 300 microseconds.

Whole episodes are played by the environment's own oracle, or at random; only `step` is timed, not the agent, nor the
reset. For an environment with tools, `step` is dispatch, checks and the tool itself; `tool` is the part of it spent in
tools, `own` the rest. The verdict is that of the median, since means count what else the machine does. Environments
that need services of a run (sandboxes, indexes) get them.

    python benchmarks/environment_steps.py
    python benchmarks/environment_steps.py maze wordle:words=100,turns=8 sql_lookup
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from typing import Any

import anyio
import numpy as np

from agent_rl.environment import EnvironmentSpec
from agent_rl.registry import environment_spec
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl.types import Task

LIMIT_US = 300
MAX_TURNS = 60
DEFAULT = (
    "wordle",
    "wordle:words=40",
    "twenty_questions",
    "maze",
    "maze:size=16",
    "text_navigation",
    "text_navigation:rooms=12,locked=true",
    "guess_number",
    "corridor",
    "bandit",
    "bandit:arms=12,visitors=4,guide=ucb",
    "sat",
    "sat:level=11,attempts=5",
    "apps",
    "apps:scale=5",
    "sql_lookup",
)


def parse(text: str) -> EnvironmentSpec:
    """`id:option=value,option=value`; values are JSON, or text."""
    id, _, options = text.partition(":")
    pairs = (option.partition("=") for option in options.split(",") if option)
    return environment_spec(id, {name: _value(value) for name, _, value in pairs})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def times_us(spec: EnvironmentSpec, tasks: list[Task], agent: str) -> tuple[list[float], list[float], float]:
    """Of every step: the whole and the part in tools, in microseconds; and of a reset, on average."""
    steps: list[float] = []
    tools: list[float] = []
    resets_s = 0.0
    rng = np.random.default_rng(0)
    for task in tasks:
        environment = spec(task)
        began = time.perf_counter()
        await environment.reset(task, 0)
        resets_s += time.perf_counter() - began
        for _ in range(MAX_TURNS):
            action = environment.oracle_action() if agent == "oracle" else environment.random_action(rng)
            began = time.perf_counter()
            step = await environment.step(action)
            steps.append(1e6 * (time.perf_counter() - began))
            tools.append(1e6 * sum(result.duration_s for result in step.info.tool_results))
            if step.terminated or step.truncated:
                break
        await environment.close()
    return steps, tools, 1e6 * resets_s / len(tasks)


async def measure(text: str, count: int, agent: str) -> bool:
    """Print a line; whether the median of the own part is within the limit."""
    spec = parse(text)
    tasks = list(spec.tasks("train", count))
    async with tool_services(ToolsConfig(cache="off")):
        await times_us(spec, tasks[:5], agent)  # imports, caches
        gc.collect()
        steps, tools, reset = await times_us(spec, tasks, agent)
    own = np.array(steps) - np.array(tools)
    median, high, mean = np.median(own), np.percentile(own, 99), np.mean(own)
    print(
        f"{text:44} {agent:7} {len(steps):6} {np.mean(steps):8.1f} {np.mean(tools):8.1f} {mean:8.1f} {median:8.1f} "
        f"{high:8.1f} {reset:9.1f}   {'ok' if median < LIMIT_US else 'TOO SLOW'}"
    )
    return bool(median < LIMIT_US)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("environments", nargs="*", default=DEFAULT, help="id, or id:option=value,option=value")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--agent", choices=("oracle", "random"), default="random")
    arguments = parser.parse_args()
    print(f"Microseconds. Limit of `own`, the step without its tools, in the median: {LIMIT_US}.\n")
    columns = f"{'step':>8} {'tool':>8} {'own':>8} {'median':>8} {'99 %':>8} {'reset':>9}"
    print(f"{'environment':44} {'agent':7} {'steps':>6} {columns}")
    results = [anyio.run(measure, text, arguments.tasks, arguments.agent) for text in arguments.environments]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
