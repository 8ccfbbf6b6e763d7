"""What sharing prefixes costs to plan and saves to train: groups of siblings, and episodes of many turns.

Planning: nanoseconds of CPU per token of the rows, for all of `pack`. Beside it the limit, one read of all token ids
and one write of the distinct ones, and TRL's planner where TRL is installed (a trie with a node per token, in Python).
Steps: an optimizer step on rows that share and on rows of the same lengths that do not. The ideal ratio is
sum(len) / distinct tokens; attention over a shared context is work that sharing cannot save, so the ratio of all useful
operations is printed too. CPU time of one thread; the variants take turns; the fastest round counts.

    python benchmarks/prefix_sharing.py
"""

import copy
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from machine import cpu_s
from small_learner import training_row
from transformers import Qwen3Config, Qwen3ForCausalLM

from agent_rl.learner.batch import PackedBatch, pack
from agent_rl.learner.forest import rectangles
from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.types import TrainingRow

PLAN_ROUNDS, TRL_ROUNDS, STEP_ROUNDS, BUDGET = 9, 1, 3, 8192
CONFIG = Qwen3Config(
    vocab_size=4096,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=16_384,
    tie_word_embeddings=True,
)


def make_row(ids_T: np.ndarray, trained_from: int) -> TrainingRow:
    return training_row(ids_T, np.arange(len(ids_T)) >= max(trained_from, 1), 1.0, CONFIG.vocab_size)


def random_ids(rng: np.random.Generator, length: int) -> np.ndarray:
    return rng.integers(0, CONFIG.vocab_size, length)


def groups(number: int, size: int, prompt: int, response: int) -> list[TrainingRow]:
    """`number` prompts with `size` responses each."""
    rng, rows = np.random.default_rng(0), list[TrainingRow]()
    for _ in range(number):
        shared = random_ids(rng, prompt)
        rows += [make_row(np.append(shared, random_ids(rng, response)), prompt) for _ in range(size)]
    return rows


def chains(number: int, turns: int, turn: int, reasoning: int) -> list[TrainingRow]:
    """Episodes of which each turn is a row: the whole history, then reasoning that the next turn does not see."""
    rng, rows = np.random.default_rng(0), list[TrainingRow]()
    for _ in range(number):
        history = random_ids(rng, turn * turns)
        for length in range(turn, turn * turns + 1, turn):
            rows.append(make_row(np.append(history[:length], random_ids(rng, reasoning)), length))
    return rows


def appended(number: int, turns: int, turn: int) -> list[TrainingRow]:
    """Episodes of which each turn is a row that goes on from the one before it."""
    return [make_row(row.token_ids_T, len(row.token_ids_T) - turn) for row in chains(number, turns, turn, 0)]


def apart(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Rows of the same lengths that share nothing."""
    rng = np.random.default_rng(1)
    return [make_row(random_ids(rng, len(row.token_ids_T)), int(row.weights_T.argmax())) for row in rows]


def trl_planner(rows: Sequence[TrainingRow]) -> Callable[[], object] | None:
    """Fills one of TRL's rows of distinct tokens, and lays it out."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental.async_grpo.packing import TreeRow
    except ImportError:
        return None
    samples = [
        {
            "input_ids": torch.from_numpy(row.token_ids_T).long(),
            "completion_mask": torch.from_numpy(row.response_mask_T).long(),
            "old_log_probs": torch.from_numpy(row.rollout_logprobs_T),
            "advantage": 1.0,
            "group_id": 0,
        }
        for row in rows
    ]

    def run() -> object:
        tree = TreeRow()
        for sample in samples:
            tree.add(sample)
        return tree.pack()

    return run


def plan_table() -> None:
    shapes = {
        "8 siblings, 1k + 250": groups(32, 8, 1000, 250),
        "8 siblings, 4k + 1k": groups(8, 8, 4000, 1000),
        "8 siblings, 100 + 60": groups(64, 8, 100, 60),
        "nothing shared, 160": apart(groups(64, 8, 100, 60)),
        **{f"{turns} turns of 200, appended": appended(8, turns, 200) for turns in (5, 10, 20, 40)},
        **{f"{turns} turns of 200 + 100": chains(8, turns, 200, 100) for turns in (5, 10, 20, 40)},
    }
    print(f"{'planning':28} {'tokens':>10} {'distinct':>9} {'ratio':>6} {'ours ns':>8} {'limit ns':>9} {'TRL ns':>8}")
    for name, rows in shapes.items():
        plan_line(name, rows)


def plan_line(name: str, rows: Sequence[TrainingRow]) -> None:
    batches, theirs = pack(rows, BUDGET), trl_planner(rows)
    copies = [np.empty(len(batch.token_ids_N), np.int32) for batch in batches]

    def limit() -> None:
        for row in rows:
            row.token_ids_T.max()
        for new in copies:
            new.fill(0)

    ours_s, limit_s, their_s = list[float](), list[float](), list[float]()
    for round_ in range(PLAN_ROUNDS):
        ours_s.append(cpu_s(lambda: pack(rows, BUDGET)))
        limit_s.append(cpu_s(limit))
        if theirs is not None and round_ < TRL_ROUNDS:
            their_s.append(cpu_s(theirs))
    tokens, distinct = sum(len(row.token_ids_T) for row in rows), sum(map(len, copies))
    ours, least, other = (min(s, default=float("nan")) / tokens * 1e9 for s in (ours_s, limit_s, their_s))
    print(f"{name:28} {tokens:10,} {distinct:9,} {tokens / distinct:6.2f} {ours:8.1f} {least:9.2f} {other:8.0f}")


def operations(batches: Sequence[PackedBatch]) -> float:
    """Products of matrices that an exact step cannot avoid, forward and backward."""
    body = CONFIG.num_hidden_layers * (
        CONFIG.hidden_size * (CONFIG.num_attention_heads * 2 + CONFIG.num_key_value_heads * 2) * CONFIG.head_dim
        + 3 * CONFIG.hidden_size * CONFIG.intermediate_size
    )
    total = 0.0
    for batch in batches:
        pairs = (batch.lengths_B.astype(float) ** 2 / 2).sum()
        for own in rectangles(batch.lengths_B, batch.stems_B):
            pairs += (own.query_stop - own.query_start) * (own.key_stop - own.key_start)
        attention = 12 * CONFIG.num_hidden_layers * CONFIG.num_attention_heads * CONFIG.head_dim * pairs
        head = 6 * CONFIG.vocab_size * CONFIG.hidden_size * len(batch.targets_K)
        total += 6 * body * len(batch.token_ids_N) + attention + head
    return total


def step_table() -> None:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(CONFIG)
    shapes = {
        "8 siblings, 1k + 100": groups(1, 8, 1000, 100),
        "8 siblings, 2k + 250": groups(1, 8, 2000, 250),
        "8 siblings, 100 + 100": groups(4, 8, 100, 100),
        "8 siblings, 17 + 200": groups(4, 8, 17, 200),
        "2 siblings, 17 + 1k": groups(3, 2, 17, 1000),
        "10 turns of 100, appended": appended(1, 10, 100),
        "10 turns of 100 + 50": chains(1, 10, 100, 50),
        "40 turns of 30 + 15": chains(1, 40, 30, 15),
    }
    print(f"\n{'optimizer step':28} {'flat s':>7} {'tree s':>7} {'saved':>7} {'tokens':>7} {'operations':>11}")
    for name, rows in shapes.items():
        step_line(name, rows, Learner(copy.deepcopy(model), LearnerConfig(token_budget=BUDGET)))


def step_line(name: str, rows: Sequence[TrainingRow], learner: Learner) -> None:
    unshared, flat_rounds, tree_rounds = apart(rows), list[float](), list[float]()
    for _ in range(STEP_ROUNDS):
        flat_rounds.append(cpu_s(lambda: learner.step(unshared)))
        tree_rounds.append(cpu_s(lambda: learner.step(rows)))
    flat, tree = pack(unshared, BUDGET), pack(rows, BUDGET)
    tokens = sum(len(b.token_ids_N) for b in flat) / sum(len(b.token_ids_N) for b in tree)
    flat_s, tree_s, useful = min(flat_rounds), min(tree_rounds), operations(flat) / operations(tree)
    print(f"{name:28} {flat_s:7.2f} {tree_s:7.2f} {flat_s / tree_s:6.2f}x {tokens:6.2f}x {useful:10.2f}x")


def main() -> None:
    torch.set_num_threads(1)
    plan_table()
    step_table()


if __name__ == "__main__":
    main()
