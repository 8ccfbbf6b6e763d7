"""Peak memory of a step is set by the token budget, not by how many rows there are, how long, or how alike."""

import numpy as np
import pytest
import torch

from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.testing.memory import LiveStorage
from agent_rl.types import TrainingRow

BUDGET = 1024
BYTES_PER_TRAINED = 64  # of `TrainedTokens` and their sources: they are there for the whole step
SIZES = {"hidden_size": 128, "intermediate_size": 384, "vocab_size": 64}


def test_live_storage_counts_what_is_held():
    ones = torch.ones(1000, requires_grad=True)
    with LiveStorage() as storage:
        first = ones.exp()  # which autograd keeps
        second = first * first
        assert storage.live == 8000
        view = second.view(10, 100).add_(1)
        del first, second
        assert storage.live == 8000
        del view
        assert (storage.live, storage.peak) == (0, 8000)


def row(ids_T: np.ndarray) -> TrainingRow:
    """Every other token is trained."""
    mask_T = np.arange(len(ids_T)) % 2 == 1
    weights_T = mask_T.astype(np.float32)
    return TrainingRow(ids_T.astype(np.int32), mask_T, -weights_T, weights_T, weights_T, np.zeros(len(ids_T), np.int32))


def rows_of(kind: str, times: int) -> list[TrainingRow]:
    """Rows that fill `times` budgets, laid flat."""
    rng = np.random.default_rng(0)
    if kind == "chain":  # each context goes on from the one before it, in another direction
        return [row(ids) for _ in range(times) for ids in _chain(rng, steps=8)]
    if kind == "identical":
        return [row(rng.integers(0, 64, 128))] * (8 * times)
    length, shared = {"short": (16, 0), "long": (1024, 0), "group": (128, 64)}[kind]
    rows = [rng.integers(0, 64, length) for _ in range(BUDGET * times // length)]
    for i, ids in enumerate(rows):
        ids[:shared] = rows[i // 8 * 8][:shared]
    return [row(ids) for ids in rows]


def _chain(rng: np.random.Generator, steps: int) -> list[np.ndarray]:
    trunk = rng.integers(0, 64, 64 * steps)
    return [np.append(trunk[: 64 * step], rng.integers(0, 64, 64)) for step in range(steps)]


def peak(make_model, rows: list[TrainingRow]) -> tuple[int, int]:
    """Bytes without those that the loss needs of every trained token, and tokens forwarded."""
    torch.manual_seed(0)
    learner = Learner(make_model("qwen3", **SIZES), LearnerConfig(token_budget=BUDGET))
    with LiveStorage() as storage:
        report = learner.step(rows)
    return storage.peak - BYTES_PER_TRAINED * int(report["trained_tokens"]), int(report["tokens"])


@pytest.fixture(scope="module")
def two_long_rows(make_model):
    """Of two full batches: the second finds gradients that the first one left."""
    return peak(make_model, rows_of("long", 2))[0]


@pytest.mark.parametrize("kind", ["short", "long", "group", "chain", "identical"])
def test_many_rows_need_no_more_memory_than_few(make_model, two_long_rows, kind):
    few, many = (peak(make_model, rows_of(kind, times)) for times in (4, 16))
    assert many[1] > 3 * few[1]
    assert many[0] < 1.05 * few[0]
    assert many[0] < 1.1 * two_long_rows


def test_fewer_tokens_need_less(make_model, two_long_rows):
    """The measure sees batches that are not full."""
    assert peak(make_model, [row(np.arange(512) % 64)] * 2)[0] < 0.7 * two_long_rows
