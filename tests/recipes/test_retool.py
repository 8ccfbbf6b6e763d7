"""The retool recipe: a cold start from a file, then PPO on episodes whose interpreter is real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agent_rl.chat.codec import ChatCodec
from agent_rl.cli import main
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.demonstrations import read_demonstrations
from agent_rl.learner.learner import Learner
from agent_rl.learner.policy import load_policy
from agent_rl.store.opening import open_journal
from tests.recipes.conftest import SMALL

FAST = ["--maths.sandbox.kind", "process", "--groups-per-batch", "2", "--eval-tasks", "4", "--checkpoint-every", "2"]
CALL = {"id": "1", "type": "function", "function": {"name": "python", "arguments": '{"code": "sum([1, 2])"}'}}
CHAT = [
    {"role": "user", "content": "What is the total of these numbers: 1, 2?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "tool_call_id": "1"},
    {"role": "assistant", "content": "\\boxed{3}"},
]


def likelihood(folder: Path, shown: Path) -> float:
    model, tokenizer = load_policy(folder)
    [[row]] = read_demonstrations(ChatCodec(tokenizer), shown).values()
    return float(np.sum(Learner(model, LearnerConfig()).logprobs([row])[0]))


@pytest.mark.slow
def test_cold_start_then_ppo_with_an_interpreter(tmp_path: Path) -> None:
    first, second, shown = tmp_path / "first", tmp_path / "second", tmp_path / "cold.jsonl"
    small = [*SMALL, *FAST, "--warm-start.demonstrations", "24", "--warm-start.check-episodes", "4"]
    assert main(["train", "retool", "--run-dir", str(first), *small]) == 0
    report = json.loads((first / "report.json").read_text())
    assert (report["oracle"]["value"], report["steps"]) == (1.0, 2)
    with open_journal(first) as journal:
        episodes = [episode for group in journal.load_groups().values() for episode in group.trajectories]
    assert [episode.failure for episode in episodes] == [None] * len(episodes)
    row = json.loads((first / "metrics.jsonl").read_text().splitlines()[0])
    assert any(name.startswith("critic/") for name in row), "PPO has a critic"

    shown.write_text(json.dumps({"messages": CHAT}) + "\n")
    options = ["--model", str(first / "start"), "--cold-start.demonstrations", str(shown), "--steps", "1"]
    options += ["--cold-start.learner.learning-rate", "1e-3", "--cold-start.epochs", "5", "--estimator", "grpo"]
    assert main(["train", "retool", "--run-dir", str(second), *SMALL[2:], *FAST, *options]) == 0
    assert likelihood(second / "start", shown) > likelihood(first / "start", shown) + 1


def test_a_cold_start_needs_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "retool", "--cold-start.demonstrations", "cold.jsonl"]) == 2
    assert "set model and cold_start.demonstrations" in capsys.readouterr().err
