"""How many GPUs of what: rollout and learner, simulated (`agent_rl.testing.simulate`); and a check against a real run.

    python benchmarks/simulate.py --gpus 8,64,512
    python benchmarks/simulate.py --check runs/mine

The table is for a model of 7B parameters on GPUs of 3.35 TB/s and 989 TFLOP/s (bf16), by these rules: a decode step
reads the weights once and each sequence's keys and values; a training step takes 6 FLOP for a weight and token, at 40%
of the peak. Episodes are drawn log-normal: heavy tails in turns' tokens and in tools. Of each number of GPUs it shows
the best of several splits, without staleness and with it. Change the constants to what you have measured.

`--check` takes the episodes of a finished run of the tiny model, measures its engine's decode step and its learner's
rate here, and predicts the run's own step time: both are printed, with the ratio.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np
from rich.console import Console
from rich.table import Table

from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.local import LocalEngine
from agent_rl.learner.policy import load_policy
from agent_rl.seeding import stream
from agent_rl.store.opening import open_journal
from agent_rl.testing.simulate import Episode, Machine, Prediction, Schedule, measured, simulate
from agent_rl.types import SamplingParams

PARAMETERS, BYTES_PER_S, FLOPS, EFFICIENCY = 7e9, 3.35e12, 989e12, 0.4
KV_BYTES_PER_TOKEN, CONTEXT_TOKENS = 57_344, 8_000  # 28 layers, 4 key-value heads of 128, bf16
SLOTS, EPISODES_PER_GPU, GROUP_SIZE, STEPS = 64, 16, 8, 4
TURNS, TURN_TOKENS, TOOL_S, SETUP_S, SIGMA = 8, 400, 1.0, 2.0, 0.8
SHARES = "0.25,0.375,0.5,0.625,0.75"  # of the GPUs, for rollouts


def heavy_tailed(count: int = 512) -> list[Episode]:
    """Episodes of about `TURNS` turns."""
    rng = stream(0, "simulated costs")
    episodes = []
    for _ in range(count):
        turns = 1 + rng.poisson(TURNS - 1)
        tokens = np.ceil(rng.lognormal(np.log(TURN_TOKENS), SIGMA, turns)).astype(int).tolist()
        tools = rng.lognormal(np.log(TOOL_S), SIGMA, turns).tolist()
        episodes.append(Episode(SETUP_S, tuple(zip(tokens, tools, strict=True)), 2 * sum(tokens) + 1000))
    return episodes


def best_split(gpus: int, episodes: list[Episode], max_staleness: int, shares: list[float]) -> tuple[int, Prediction]:
    """The number of GPUs for rollouts whose steps are the shortest."""
    groups = max(1, gpus * EPISODES_PER_GPU // GROUP_SIZE)
    schedule = Schedule(STEPS, groups, GROUP_SIZE, max_staleness, gpus * EPISODES_PER_GPU * (max_staleness + 1))
    found = []
    for rollout in sorted({min(max(1, round(share * gpus)), gpus - 1) for share in shares}):
        machine = Machine(
            replicas=rollout,
            slots=SLOTS,
            step_s=2 * PARAMETERS / BYTES_PER_S,
            sequence_s=KV_BYTES_PER_TOKEN * CONTEXT_TOKENS / BYTES_PER_S,
            learner_tokens_per_s=(gpus - rollout) * FLOPS * EFFICIENCY / (6 * PARAMETERS),
            update_s=2 * PARAMETERS / 50e9,  # over 400 Gb/s
        )
        found.append((rollout, simulate(episodes, machine, schedule)))
    return min(found, key=lambda pair: pair[1].step_s)


def show_table(counts: list[int], shares: list[float]) -> None:
    columns = "GPUs|staleness|for rollouts|step|episodes/s|engines busy|learner busy|mean age".split("|")
    table = Table(*columns, title="The best split of so many GPUs, simulated")
    episodes = heavy_tailed()
    for gpus in counts:
        for max_staleness in (0, 1):
            rollout, found = best_split(gpus, episodes, max_staleness, shares)
            rate = max(1, gpus * EPISODES_PER_GPU // GROUP_SIZE) * GROUP_SIZE / found.step_s
            parts = f"{found.engine_busy:.0%}", f"{found.learner_busy:.0%}", f"{found.staleness_mean:.2f}"
            table.add_row(f"{gpus:,}", str(max_staleness), str(rollout), f"{found.step_s:.0f} s", f"{rate:.1f}", *parts)
    Console().print(table)


def decode_step_s(folder: Path, slots: int, max_context: int) -> tuple[float, float]:
    """Seconds of a decode step here: of itself, and for each sequence in it."""
    model, _ = load_policy(str(folder))
    tokens = 32

    async def measure(count: int) -> float:
        async with LocalEngine(model, max_batch=slots, max_context=max_context) as engine:
            seconds = []
            for _ in range(4):
                began = time.perf_counter()
                async with anyio.create_task_group() as tasks:
                    for number in range(count):
                        sampling = SamplingParams(max_tokens=tokens)
                        prompt = np.arange(1, 33, dtype=np.int64)
                        tasks.start_soon(engine.generate, GenerationRequest(f"{number}", prompt, sampling, number))
                seconds.append((time.perf_counter() - began) / tokens)
            return min(seconds)

    few, many = anyio.run(measure, 1), anyio.run(measure, slots)
    sequence_s = max(0.0, (many - few) / (slots - 1))
    return max(few - sequence_s, 0.0), sequence_s


def check(folder: Path) -> None:
    """Predict a finished run from its own episodes."""
    config = json.loads((folder / "config.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    with open_journal(folder) as journal:
        episodes = measured(journal.load_groups().values())
    slots = config["max_concurrent_episodes"]
    step_s, sequence_s = decode_step_s(folder / "start", slots, config["limits"]["max_context_tokens"])
    batch = config["groups_per_batch"] * config["group_size"]
    learn_s = float(np.median([row["time/learn_s"] for row in metrics]))
    machine = Machine(
        replicas=1,
        slots=slots,
        step_s=step_s,
        sequence_s=sequence_s,
        learner_tokens_per_s=batch * float(np.mean([e.trained_tokens for e in episodes])) / learn_s,
        update_s=float(np.median([row["time/update_weights_s"] for row in metrics])),
    )
    schedule = Schedule(
        12, config["groups_per_batch"], config["group_size"], config["max_staleness"], slots, config["overtake"]
    )
    predicted = simulate(episodes, machine, schedule)
    alone = simulate(episodes, replace(machine, learner_tokens_per_s=1e12, update_s=0.0), replace(schedule, steps=4))
    real = float(np.median(np.diff([row["time_s"] for row in metrics])))
    Console().print(
        f"decode step {1e3 * step_s:.2f} ms + {1e3 * sequence_s:.3f} ms a sequence; learner {learn_s:.2f} s a step; "
        f"rollouts alone would take {alone.step_s:.2f} s a step.\n"
        f"Step: predicted {predicted.step_s:.2f} s, real {real:.2f} s (median of {len(metrics)}), ratio "
        f"{real / predicted.step_s:.2f}. Two parts of one process share its cores, which the simulation does not know."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="2,8,64,512", help="numbers of GPUs; 10,000 take minutes for each share")
    parser.add_argument("--shares", default=SHARES, help="of the GPUs, for rollouts: those to try")
    parser.add_argument("--check", type=Path, help="a finished run's folder")
    options = parser.parse_args()
    if options.check:
        check(options.check)
    else:
        shares = [float(share) for share in options.shares.split(",")]
        show_table([int(count) for count in options.gpus.split(",")], shares)


if __name__ == "__main__":
    main()
