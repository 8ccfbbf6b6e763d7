"""The recipe of Search Self-play: a checkpoint learns how to propose from a file, then plays its roles, and trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_rl.chat.wire import message_to_wire
from agent_rl.cli import main
from agent_rl.store.opening import open_journal
from agent_rl.types import Message
from agent_rl_envs.search import SelfPlayConfig, SelfPlayEnvironment


@pytest.mark.slow
def test_one_model_proposes_and_trains(finished: Path, tmp_path: Path) -> None:
    run, shown = tmp_path / "run", tmp_path / "cold.jsonl"
    asks = Message("assistant", "<question>Who?</question>")
    config = SelfPlayConfig(hops=1, style="search_r1")
    chats = [[*task.prompt, asks] for task in SelfPlayEnvironment.tasks("train", 4, 0, config)]
    shown.write_text("".join(json.dumps({"messages": list(map(message_to_wire, chat))}) + "\n" for chat in chats))
    options = ["--steps", "2", "--groups-per-batch", "2", "--group-size", "2", "--eval-tasks", "2"]
    options += ["--search.hops", "1", "--limits.max-turns", "4", "--limits.max-response-tokens", "32"]
    options += ["--limits.max-context-tokens", "1024", "--model", str(finished / "start")]
    options += ["--cold-start.demonstrations", str(shown), "--cold-start.epochs", "40"]
    options += ["--cold-start.learner.learning-rate", "5e-3"]
    assert main(["train", "self_play_search", "--run-dir", str(run), *options]) == 0
    report = json.loads((run / "report.json").read_text())
    assert (report["oracle"]["value"], report["steps"]) == (1.0, 2)
    with open_journal(run) as journal:
        turns = [turn for g in journal.load_groups().values() for t in g.trajectories for turn in t.turns]
    proposals = [turn for turn in turns if turn.tag == "proposer"]
    assert proposals
    assert {turn.reward_terms["valid"] for turn in proposals if turn.reward_terms} == {0.0}, "nobody searched"
