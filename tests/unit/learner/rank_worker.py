"""What every rank of the tests runs: `python rank_worker.py SCENARIO FOLDER`, told by the variables of torchrun."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from conftest import build, random_rows

from agent_rl.cli import run_recipe
from agent_rl.config import Config
from agent_rl.learner.config import (
    DistillationConfig,
    ImitationLossConfig,
    LearnerConfig,
    LoraConfig,
    MemoryConfig,
    ReferenceConfig,
)
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.ranks import Ranks, follow, lead

TIMEOUT_S = 120.0
SHORT_TIMEOUT_S = 8.0

BASE = LearnerConfig(learning_rate=1e-2, token_budget=64)
RAGGED = [20, 30, 25, 9, 40, 70]
CASES: dict[str, tuple[str, dict[str, object], list[int]]] = {
    "tied": ("qwen3", {}, RAGGED),
    "a_batch_for_one_rank_only": ("llama", {"token_budget": 512}, [20]),
    "minibatches_epochs_and_reference": (
        "qwen2",
        {"minibatches": 2, "epochs": 2, "kl_coefficient": 0.1, "old_logprobs": "recompute", "loss": "gspo"},
        RAGGED,
    ),
    "lora_and_reference": ("qwen3", {"lora": LoraConfig(rank=4), "kl_coefficient": 0.1}, RAGGED),
    "moving_reference": (
        "qwen3",
        {"kl_coefficient": 0.5, "reference": ReferenceConfig(follow=0.3, every=2), "learning_rate": 3e-2},
        RAGGED,
    ),
    "lora_of_the_head": ("llama", {"lora": LoraConfig(rank=4, targets=("lm_head", "q_proj"))}, RAGGED),
    "teacher_values_and_imitation": (
        "llama",
        {
            "distillation": DistillationConfig(teacher="given", divergence="exact_reverse"),
            "imitation": ImitationLossConfig(),
        },
        RAGGED,
    ),
    "activation_checkpointing": ("qwen3", {"memory": MemoryConfig(activation_checkpointing=True)}, RAGGED),
}
CHECKPOINTED = ("tied", "lora_and_reference", "moving_reference")


def config_of(case: str) -> LearnerConfig:
    return BASE.model_copy(update=CASES[case][1])


def rows_of(case: str, step: int = 0):
    return random_rows(CASES[case][2], seed=step)


def model_of(case: str, seed: int = 0):
    model = build(CASES[case][0], torch.float64)
    if seed:
        with torch.no_grad():
            model.get_output_embeddings().weight.add_(0.1 * torch.randn(1, 32, dtype=torch.float64))
    return model


def options_of(case: str) -> dict[str, object]:
    """What the learner of a case is given beside its configuration."""
    if case != "teacher_values_and_imitation":
        return {}
    return {"teacher": model_of(case, seed=1), "values": CriticConfig(trunk="policy", coefficient=0.1)}


def step(learner: Learner, case: str, number: int) -> dict[str, float]:
    rows = rows_of(case, number)
    if not options_of(case):
        return learner.step(rows)
    rows = [replace(row, returns_T=np.linspace(0, 1, len(row.token_ids_T), dtype=np.float32)) for row in rows]
    return learner.step(rows, imitated=random_rows([12, 50], seed=9))


def poisoned_rows():
    """One row, so one rank, has a gradient that is not finite."""
    first, *others = rows_of("tied")
    return [replace(first, advantages_T=np.where(first.response_mask_T, np.float32("nan"), 0)), *others]


def two_steps(learner: Learner, case: str) -> list[dict[str, float]]:
    return [step(learner, case, number) for number in range(2)]


def three_more(learner: Learner, case: str) -> list[float]:
    return [step(learner, case, number)["loss"] for number in range(2, 5)]


def learn(ranks: Ranks, folder: Path) -> None:
    """Every case on the ranks; checkpoints in both directions; bf16."""
    found: dict[str, object] = {}
    for case in CASES:
        learner = ranks.learner(model_of(case), config_of(case), **options_of(case))
        reports = two_steps(learner, case)
        found[case] = {"reports": reports, "weights": learner.weights()}
        if options_of(case):
            found[case] |= {"values": learner.values([row.token_ids_T for row in rows_of(case)])}
        found[case] |= {"logprobs": learner.logprobs(rows_of(case))}
        if case in CHECKPOINTED:
            learner.save(folder / f"two_ranks_{case}")
            found[case] |= {"losses": three_more(learner, case)}
            learner.load(folder / f"two_ranks_{case}")
            found[case] |= {"again": three_more(learner, case)}
            learner.load(folder / f"one_rank_{case}")
            found[case] |= {"from_one": three_more(learner, case), "steps": learner.optimizer_steps}
            held = sum(p.to_local().nbytes for p in learner.model.parameters())
            found[case] |= {"bytes": (held, sum(p.nbytes for p in learner.model.parameters()))}
    half = ranks.learner(build("llama", torch.bfloat16), BASE)
    found["half"] = {"loss": half.step(rows_of("tied"))["loss"], "weights": half.weights()}
    skipping = ranks.learner(model_of("tied"), BASE)
    before = skipping.weights()
    skipped = skipping.step(poisoned_rows())["skipped_steps"]
    after = skipping.weights()
    unchanged = all(torch.equal(before[name], after[name]) for name in before)
    found["poisoned"] = {"skipped": skipped, "unchanged": unchanged, "then": skipping.step(rows_of("tied"))}
    torch.save(found, folder / "found.pt")


def step_for_ever(ranks: Ranks, folder: Path) -> None:
    learner = ranks.learner(model_of("tied"), BASE)
    while True:
        learner.step(rows_of("tied"))
        (folder / "stepped").touch()
        time.sleep(0.1)


SCENARIOS = {"learn": (learn, TIMEOUT_S), "step_for_ever": (step_for_ever, SHORT_TIMEOUT_S)}


class Scenario(Config):
    """Which scenario, and where its files are."""

    name: str
    folder: Path


def main(scenario: Scenario) -> None:
    torch.set_num_threads(1)
    play, timeout_s = SCENARIOS[scenario.name]
    if int(os.environ["RANK"]) > 0:
        follow(timeout_s)
        return
    with lead(timeout_s) as ranks:
        play(ranks, scenario.folder)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    run_recipe(Scenario, main)
