"""What a step of the learner costs with parameters cut over ranks, and with each way to save memory.

    python benchmarks/sharded_learner.py

8 rollouts of 100-900 tokens, an 11M-parameter Qwen3, fp32. Ranks are processes of this machine under torchrun (gloo),
one thread each. State is what a rank holds between two steps: weights, gradients and both moments, of which the limit
is 16 bytes per parameter over the ranks. CPU time is that of one rank, and its share is the time of a single process
over the ranks; what is more is the collectives, which on one machine are copies. Peaks are what torch's allocator
takes in a step beside that state. Ways to save memory take turns in one process; the fastest round counts.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import cpu_s, peak_bytes
from rich.console import Console
from rich.table import Table
from small_learner import CONFIG, training_row
from torch.distributed.tensor import DTensor
from transformers import Qwen3ForCausalLM

from agent_rl.learner.config import LearnerConfig, MemoryConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.ranks import follow, follows, lead
from agent_rl.types import TrainingRow

ROLLOUTS, ROUNDS, RANKS, TIMEOUT_S = 8, 3, 2, 300
BUDGET = 2048
WAYS = {
    "plain": LearnerConfig(token_budget=BUDGET),
    "half the token budget": LearnerConfig(token_budget=BUDGET // 2),
    "activation checkpointing": LearnerConfig(token_budget=BUDGET, memory=MemoryConfig(activation_checkpointing=True)),
    "compile": LearnerConfig(token_budget=BUDGET, memory=MemoryConfig(compile=True)),
    "autocast": LearnerConfig(token_budget=BUDGET, autocast=True),
    "autocast, fp32 head": LearnerConfig(token_budget=BUDGET, autocast=True, memory=MemoryConfig(fp32_head=True)),
}


def make_model() -> Qwen3ForCausalLM:
    """The same weights in every process."""
    torch.manual_seed(0)
    return Qwen3ForCausalLM(CONFIG)


def make_rows() -> list[TrainingRow]:
    """Rows whose first 60 tokens are the prompt."""
    rng = np.random.default_rng(0)
    return [
        training_row(
            rng.integers(0, CONFIG.vocab_size, length), np.arange(length) >= 60, rng.normal(), CONFIG.vocab_size
        )
        for length in rng.integers(100, 900, ROLLOUTS).tolist()
    ]


def state_bytes(learner: Learner) -> int:
    """Weights, gradients and moments on this rank."""
    held = learner.state_dict()
    tensors = list(held["trainable"].values())
    tensors += [value for moments in held["optimizer"]["adamw"].values() for value in moments.values()]
    tensors += [p.grad for p in learner.model.parameters() if p.grad is not None]
    return sum((tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in tensors)


def measure(learner: Learner) -> dict[str, float]:
    """A step in figures, the first two not counted."""
    rows = make_rows()
    loss = learner.step(rows)["loss"]
    learner.step(rows)
    times = [cpu_s(lambda: learner.step(rows)) for _ in range(ROUNDS)]
    peak = peak_bytes(lambda: learner.step(rows))
    return {"loss": loss, "cpu_s": min(times), "peak": peak, "state": state_bytes(learner)}


def in_ranks(report: Path) -> None:
    """What torchrun starts on every rank."""
    if follows():
        return follow(TIMEOUT_S)
    with lead(TIMEOUT_S) as ranks:
        assert ranks is not None
        report.write_text(json.dumps(measure(ranks.learner(make_model(), WAYS["plain"]))))


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        return in_ranks(Path(sys.argv[1]))
    parameters = sum(p.numel() for p in make_model().parameters())
    alone = measure(Learner(make_model(), WAYS["plain"]))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={RANKS}", "--standalone"]
        subprocess.run(
            [*torchrun, __file__, str(report)],
            check=True,
            timeout=3 * TIMEOUT_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        cut = json.loads(report.read_text())
    table = Table(title=f"{parameters / 1e6:.1f}M parameters cut over ranks")
    for column in ("ranks", "loss", "CPU s", "of its share", "state MiB", "limit", "peak"):
        table.add_column(column, justify="right")
    for ranks, found in ((1, alone), (RANKS, cut)):
        share = found["cpu_s"] / (alone["cpu_s"] / ranks)
        limit = 16 * parameters / ranks
        sizes = [f"{size / 2**20:,.0f}" for size in (found["state"], limit, found["peak"])]
        table.add_row(str(ranks), f"{found['loss']:.7f}", f"{found['cpu_s']:.2f}", f"{share:.2f}", *sizes)
    Console().print(table, ways())


def ways() -> Table:
    """Time and peak of each way to save memory, as shares of the plain step's."""
    model, rows = make_model(), make_rows()
    steps: dict[str, Callable[[], object]] = {}
    for name, config in WAYS.items():
        learner = Learner(copy.deepcopy(model), config)
        learner.step(rows)  # gradients exist from here on, and layers are compiled
        steps[name] = lambda learner=learner: learner.step(rows)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            times[name].append(cpu_s(step))
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    table = Table(title="Ways to save memory, and what they cost on this machine")
    for column in ("", "CPU s", "of plain", "peak MiB", "of plain"):
        table.add_column(column, justify="right" if column else "left")
    for name in steps:
        time_s, of_plain = min(times[name]), min(times[name]) / min(times["plain"])
        size, share = peaks[name] / 2**20, peaks[name] / peaks["plain"]
        table.add_row(name, f"{time_s:.2f}", f"{of_plain:.2f}", f"{size:,.0f}", f"{share:.2f}")
    return table


if __name__ == "__main__":
    main()
