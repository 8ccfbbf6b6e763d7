"""How much of a policy's bf16 weights a step of reinforcement learning changes, and what sending that costs.

    agent-rl train quickstart --run-dir runs/mine
    python benchmarks/weight_deltas.py runs/mine

Trains the warm-started policy of a finished quickstart for some steps on its own tasks, at its own learning rate and at
that which large models are trained with, and encodes each new version for an engine in bf16. Every delta is applied to
the weights before it and compared bit for bit. (Small tensors cost more for each weight: names, and blocks that are not
full.) Then the speed, on 64M weights of which 1 % move to a neighbour: bytes
of bf16 weights per CPU second of one thread, beside a copy of the same weights; the fastest of some rounds counts.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import torch
from machine import cpu_s
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load

from agent_rl.cli import load_recipe
from agent_rl.config import load_config
from agent_rl.curriculum import shuffled_epochs
from agent_rl.engine.delta.coding import apply, encode
from agent_rl.engine.delta.encoder import Encoder
from agent_rl.learner.policy import load_policy
from agent_rl.train import train
from agent_rl_envs.sql_lookup import SqlLookup, SqlLookupConfig

LARGE_MODELS = 1e-6  # learning rate
WEIGHTS, CHANGED, ROUNDS = 64_000_000, 0.01, 5


def deltas(config: Any, start: Path) -> list[tuple[float, float]]:
    """Of each step, the share of bf16 weights that changed, and the delta's size by that of all weights."""
    model, tokenizer = load_policy(start)
    options = SqlLookupConfig(two_query_share=config.two_query_share)
    tasks = SqlLookup.tasks("train", config.steps * config.groups_per_batch, config.seed, options)
    task_at = shuffled_epochs(tasks, config.seed)
    encoder, found = Encoder("bfloat16"), list[tuple[float, float]]()
    encoder.advance(dict(model.named_parameters()))

    def measure(_: object) -> None:
        old = encoder.weights
        delta = encoder.advance(dict(model.named_parameters()))
        assert delta is not None
        changed = check(old, encoder.weights, delta.data)
        total = sum(tensor.numel() for tensor in old.values())
        found.append((changed / total, len(delta.data) / (2 * total)))

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(
            partial(
                train,
                config,
                run_dir=Path(folder),
                model=model,
                tokenizer=tokenizer,
                environment=lambda task: SqlLookup(),
                task_at=task_at,
                on_step=measure,
            )
        )
    return found


def check(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor], data: bytes) -> int:
    """Weights that changed. Raises `AssertionError` unless the delta turns the old ones into the new ones."""
    codes, changed = load(data), 0
    for name, tensor in new.items():
        before, after = (t.view(torch.uint16).numpy().reshape(-1) for t in (old[name], tensor))
        changed += int((before != after).sum())
        if name in codes:
            apply(codes[name].data, before)
        assert np.array_equal(before, after), name
    return changed


def speeds() -> tuple[float, dict[str, float]]:
    """Bits per changed weight, and GB of weights per CPU second."""
    rng = np.random.default_rng(0)
    old = rng.integers(0x3C00, 0x3F00, WEIGHTS).astype(np.uint16)
    moved = rng.random(WEIGHTS) < CHANGED
    new = (old + np.where(moved, rng.choice([-1, 1], WEIGHTS), 0)).astype(np.uint16)
    code, restored = encode(old, new), old.copy()
    assert code is not None
    apply(code, restored)
    assert np.array_equal(restored, new)
    actions = {
        "copy": lambda: np.copyto(restored, new),
        "encode": lambda: encode(old, new),
        "apply": lambda: apply(code, restored),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            times[name].append(cpu_s(action))
    bits = 8 * len(code) / (old != new).sum()
    return bits, {name: new.nbytes / min(measured) / 1e9 for name, measured in times.items()}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="folder of a quickstart run, for its warm-started policy")
    parser.add_argument("--steps", type=int, default=10, help="training steps")
    options = parser.parse_args()
    recipe, start = load_recipe("quickstart"), options.run_dir / "start"
    config: Any = load_config(recipe.config, options.run_dir / "config.json")
    config = config.model_copy(update={"steps": options.steps})
    table = Table(title=f"Deltas of {options.steps} steps, bf16")
    for column in ("learning rate", "weights changed", "delta / all weights", "bits per changed weight"):
        table.add_column(column, justify="right")
    for rate in (config.learner.learning_rate, LARGE_MODELS):
        learner = config.learner.model_copy(update={"learning_rate": rate})
        changed, size = np.mean(deltas(config.model_copy(update={"learner": learner}), start), axis=0)
        table.add_row(f"{rate:.0e}", f"{changed:.2%}", f"{size:.2%}", f"{16 * size / changed:.1f}")
    Console().print(table)
    bits, found = speeds()
    print(f"{WEIGHTS / 1e6:.0f}M weights, {CHANGED:.0%} of them changed: {bits:.1f} bits for each")
    for name, speed in found.items():
        print(f"{name:8} {speed:6.2f} GB of weights per CPU second")


if __name__ == "__main__":
    main()
