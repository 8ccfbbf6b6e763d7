"""Real groups of two processes (gloo): what they learn, save and load, and how they end when one of them is lost."""

import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from agent_rl.errors import ConfigError
from agent_rl.learner.batch import pack
from agent_rl.learner.config import LearnerConfig, LpRegConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.sharding import check_shardable, deal_batches
from tests.ports import free_port

FOLDER = Path(__file__).parent
WORKER = FOLDER / "rank_worker.py"
DEADLINE_S = 240  # of a whole scenario, also on a busy machine


def worker_module():
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("rank_worker", WORKER)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


worker = worker_module()


@contextmanager
def started(scenario: str, folder: Path, ranks: int = 2) -> Generator[list[subprocess.Popen[str]]]:
    """The ranks as torchrun would start them, but without its watch over them. None outlives the block."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), "--name", scenario, "--folder", str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for(path: Path, processes: list[subprocess.Popen[str]]) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < ends
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.05)


def single(case: str) -> Learner:
    return Learner(worker.model_of(case), worker.config_of(case), **worker.options_of(case))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two ranks have done everything that the tests below ask about."""
    folder = tmp_path_factory.mktemp("ranks")
    for case in worker.CHECKPOINTED:
        learner = single(case)
        worker.two_steps(learner, case)
        learner.save(folder / f"one_rank_{case}")
    with started("learn", folder) as processes:
        outputs = [process.communicate(timeout=DEADLINE_S)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return torch.load(folder / "found.pt", weights_only=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", worker.CASES)
def test_two_ranks_learn_what_one_process_learns(found, case):
    learner = single(case)
    before = {name: weight.clone() for name, weight in learner.weights().items()}
    reports = worker.two_steps(learner, case)
    weights = learner.weights()
    assert weights.keys() == found[case]["weights"].keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[case]["weights"][name], weight, rtol=0, atol=1e-9)
    for theirs, ours in zip(found[case]["logprobs"], learner.logprobs(worker.rows_of(case)), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-6)
    for row, theirs in zip(worker.rows_of(case), found[case].get("values", ()), strict=False):
        assert np.abs(theirs[1:]).max() > 0
        np.testing.assert_allclose(theirs, learner.values([row.token_ids_T])[0], atol=1e-6)
    moved = [name for name in weights if not torch.equal(weights[name], before[name])]
    assert len(moved) == (2 + 1 if "lora_of_the_head" in case else 14 if "lora" in case else len(weights))
    for report, expected in zip(found[case]["reports"], reports, strict=True):
        padded = {"tokens"}  # a rank without a batch repeats one
        assert {name: report[name] for name in expected.keys() - padded} == pytest.approx(
            {name: expected[name] for name in expected.keys() - padded}, rel=1e-6, abs=1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("case", worker.CHECKPOINTED)
def test_a_state_goes_on_with_another_number_of_ranks(found, folder, case):
    uninterrupted = single(case)
    worker.two_steps(uninterrupted, case)
    losses = worker.three_more(uninterrupted, case)
    resumed = single(case)
    resumed.load(folder / f"two_ranks_{case}")
    assert resumed.optimizer_steps == 2
    assert worker.three_more(resumed, case) == pytest.approx(losses, abs=1e-6), "saved by two, loaded by one"
    assert found[case]["losses"] == pytest.approx(losses, abs=1e-6)
    assert found[case]["from_one"] == pytest.approx(losses, abs=1e-6), "saved by one, loaded by two"
    assert found[case]["steps"] == 5
    assert found[case]["again"] == found[case]["losses"], "bit for bit on the same ranks"


@pytest.mark.slow
def test_a_rank_holds_its_part_only(found):
    held, all_bytes = found["tied"]["bytes"]
    assert held <= 0.51 * all_bytes


@pytest.mark.slow
def test_shards_of_another_model_are_refused(folder):
    with pytest.raises(ConfigError, match="another model"):
        Learner(worker.build("qwen3", hidden_size=64), worker.BASE).load(folder / "two_ranks_tied")
    with pytest.raises(ConfigError, match="another model"):
        single("lora_and_reference").load(folder / "two_ranks_tied")


@pytest.mark.slow
def test_half_precision_is_for_products_only_with_shards_too(found):
    learner = Learner(worker.build("llama", torch.bfloat16), worker.BASE)
    assert learner.step(worker.rows_of("tied"))["loss"] == pytest.approx(found["half"]["loss"], abs=2e-3)
    assert {weight.dtype for weight in found["half"]["weights"].values()} == {torch.float32}


@pytest.mark.slow
def test_all_ranks_skip_a_step_that_one_of_them_cannot_take(found):
    assert found["poisoned"]["skipped"] == 1
    assert found["poisoned"]["unchanged"]
    expected = single("tied").step(worker.rows_of("tied"))
    assert found["poisoned"]["then"]["loss"] == pytest.approx(expected["loss"], abs=1e-6)


@pytest.mark.slow
def test_a_killed_rank_ends_the_driver_with_one_sentence(tmp_path):
    with started("step_for_ever", tmp_path) as (driver, follower):
        wait_for(tmp_path / "stepped", [driver, follower])
        follower.kill()
        _, output = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 2
    assert "Another rank has ended or fallen silent" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_silent_driver_ends_the_ranks_that_follow_it(tmp_path):
    with started("step_for_ever", tmp_path) as (driver, follower):
        wait_for(tmp_path / "stepped", [driver, follower])
        driver.send_signal(signal.SIGSTOP)
        _, output = follower.communicate(timeout=DEADLINE_S)
    assert follower.returncode == 2
    assert "Rank 0, which runs everything else, has ended or been silent" in output
    assert "Traceback" not in output


def test_what_needs_all_tokens_at_once_is_refused():
    config = LearnerConfig(old_logprobs="recompute", lp_reg=LpRegConfig())
    with pytest.raises(ConfigError, match="lp_reg"):
        check_shardable(config)


def test_batches_are_dealt_evenly_and_none_is_lost(make_rows):
    batches = pack(make_rows([60, 50, 40, 30, 20, 10, 5]), 64)
    for ranks in (1, 2, 3, 5):
        dealt = deal_batches(batches, ranks)
        assert len({len(part) for part in dealt}) == 1
        weights = np.concatenate([batch.weights_K for part in dealt for batch in part])
        assert weights.sum() == pytest.approx(sum(batch.weights_K.sum() for batch in batches))
        rounds = [[len(batch.token_ids_N) for batch in at_once] for at_once in zip(*dealt, strict=True)]
        assert all(min(before) >= max(after) for before, after in itertools.pairwise(rounds)), "like waits for like"
