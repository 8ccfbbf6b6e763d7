"""How many GPUs of what: rollout and learner, simulated (`agent_rl.testing.simulate`).

    python benchmarks/simulate.py --gpus 8,64,512
    python benchmarks/simulate.py --recipes

The table is for a model of 7B parameters on GPUs of 3.35 TB/s and 989 TFLOP/s (bf16), by these rules: a decode step
reads the weights once and each sequence's keys and values; a token that is read takes 2 FLOP for a weight, a training
step 6, at 40% of the peak; a turn keeps the event loop of a machine of 8 GPUs for half a millisecond. Episodes are
drawn log-normal: heavy tails in turns' tokens and in tools. Of each number of GPUs it shows the best of several splits,
without staleness and with it; above 512 GPUs, that of 512. Change the constants to what you have measured.

`--recipes` does the same for workloads such as the recipes', on 8 GPUs with 512 episodes a step and one of staleness:
what 200 steps take and cost. What an episode consists of is an assumption, in `RECIPES`.

`simulate_check.py` compares the simulator with real runs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from agent_rl.seeding import stream
from agent_rl.testing.simulate import Episode, Machine, Prediction, Schedule, TurnCost, simulate

PARAMETERS, BYTES_PER_S, FLOPS, EFFICIENCY, HOST_S = 7e9, 3.35e12, 989e12, 0.4, 0.5e-3
KV_BYTES_PER_TOKEN = 57_344  # 28 layers, 4 key-value heads of 128, bf16
SLOTS, EPISODES_PER_GPU, GROUP_SIZE, STEPS, SIGMA = 64, 16, 8, 4, 0.8
SEARCHED = 512  # of more GPUs, the split is that of so many
SHARES = "0.25,0.375,0.5,0.625,0.75"  # of the GPUs, for rollouts


@dataclass(frozen=True, slots=True)
class Workload:
    """Episodes: medians of tokens and seconds per turn, the mean number of turns, tokens that the policy only reads."""

    turns: int = 8
    turn_tokens: int = 400
    tool_s: float = 1.0
    setup_s: float = 2.0
    prompt_tokens: int = 1_000
    observation_tokens: int = 500
    episodes_per_gpu: int = EPISODES_PER_GPU

    def episodes(self, count: int = 512) -> list[Episode]:
        """Some, with heavy tails."""
        rng = stream(0, "simulated costs")
        found = []
        for _ in range(count):
            turns = 1 + rng.poisson(self.turns - 1)
            tokens = np.ceil(rng.lognormal(np.log(self.turn_tokens), SIGMA, turns)).astype(int).tolist()
            tools = rng.lognormal(np.log(self.tool_s), SIGMA, turns).tolist()
            reads = [self.prompt_tokens] + [self.observation_tokens] * (turns - 1)
            costs = tuple(map(TurnCost, tokens, tools, reads))
            found.append(Episode(self.setup_s, costs, sum(reads) + sum(tokens)))
        return found


RECIPES = {
    "search": Workload(3, 150, 0.3, 0.1, 300, 600),
    "sql": Workload(2, 300, 0.1, 0.1, 2_000, 300),
    "retool": Workload(3, 1_200, 0.5, 0.5, 500, 200),
    "apps": Workload(15, 200, 0.2, 0.1, 3_000, 400),
    "browser": Workload(12, 120, 1.5, 1.0, 1_500, 1_200),
    "swe": Workload(30, 250, 2.0, 10.0, 3_000, 800),
}


def predict(gpus: int, rollout: int, work: Workload, max_staleness: int) -> Prediction:
    """Training with `rollout` of the GPUs for rollouts."""
    at_once = gpus * work.episodes_per_gpu
    episodes = work.episodes()
    context_tokens = float(np.mean([episode.trained_tokens for episode in episodes])) / 2  # halfway
    schedule = Schedule(STEPS, max(1, at_once // GROUP_SIZE), GROUP_SIZE, max_staleness, at_once * (max_staleness + 1))
    machine = Machine(
        replicas=rollout,
        slots=SLOTS,
        step_s=2 * PARAMETERS / BYTES_PER_S,
        sequence_s=KV_BYTES_PER_TOKEN * context_tokens / BYTES_PER_S,
        learner_tokens_per_s=max(1, gpus - rollout) * FLOPS * EFFICIENCY / (6 * PARAMETERS),
        update_s=2 * PARAMETERS / 50e9,  # over 400 Gb/s
        read_s=2 * PARAMETERS / (FLOPS * EFFICIENCY),
        host_s=HOST_S,
        workers=-(-gpus // 8),
    )
    return simulate(episodes, machine, schedule)


def best_split(gpus: int, work: Workload, max_staleness: int, shares: list[float]) -> tuple[int, Prediction]:
    """The number of GPUs for rollouts whose steps are the shortest."""
    searched = min(gpus, SEARCHED)
    tried = sorted({max(1, min(round(share * searched), searched - 1)) for share in shares})
    found = [(rollout, predict(searched, rollout, work, max_staleness)) for rollout in tried]
    rollout, prediction = min(found, key=lambda pair: pair[1].step_s)
    if searched == gpus:
        return rollout, prediction
    rollout = round(rollout * gpus / searched)
    return rollout, predict(gpus, rollout, work, max_staleness)


def show_table(counts: list[int], shares: list[float]) -> None:
    columns = "GPUs|staleness|for rollouts|step|episodes/s|engines busy|learner busy|mean age".split("|")
    table = Table(*columns, title="The best split of so many GPUs, simulated")
    for gpus in counts:
        for max_staleness in (0, 1) if gpus > 1 else (0,):  # a single one does both, in turn
            rollout, found = best_split(gpus, Workload(), max_staleness, shares)
            rate = max(1, gpus * EPISODES_PER_GPU // GROUP_SIZE) * GROUP_SIZE / found.step_s
            parts = f"{found.engine_busy:.0%}", f"{found.learner_busy:.0%}", f"{found.staleness_mean:.2f}"
            table.add_row(f"{gpus:,}", str(max_staleness), str(rollout), f"{found.step_s:.0f} s", f"{rate:.1f}", *parts)
    Console().print(table)


def show_recipes(shares: list[float], gpus: int = 8, steps: int = 200, dollars: float = 2.5) -> None:
    columns = f"recipe|turns|tokens a turn|tools a turn|for rollouts|step|{steps} steps|GPU hours|dollars".split("|")
    title = f"{gpus} GPUs, 512 episodes a step, {dollars:g} dollars a GPU hour, simulated"
    table = Table(*columns, title=title)
    for name, work in RECIPES.items():
        rollout, found = best_split(gpus, replace(work, episodes_per_gpu=512 // gpus), 1, shares)
        hours = found.step_s * steps / 3600
        table.add_row(
            *(name, str(work.turns), str(work.turn_tokens), f"{work.tool_s:g} s", str(rollout)),
            *(
                f"{found.step_s:.0f} s",
                f"{hours:.1f} h",
                f"{hours * gpus:.0f}",
                f"{hours * gpus * dollars:.0f}",
            ),
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="2,8,64,512", help="numbers of GPUs; 10,000 take a quarter of an hour")
    parser.add_argument("--shares", default=SHARES, help="of the GPUs, for rollouts: those to try")
    parser.add_argument("--recipes", action="store_true", help="what the recipes would take and cost")
    options = parser.parse_args()
    shares = [float(share) for share in options.shares.split(",")]
    if options.recipes:
        show_recipes(shares)
    else:
        show_table([int(count) for count in options.gpus.split(",")], shares)


if __name__ == "__main__":
    main()
