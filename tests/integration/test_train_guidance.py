"""Training with guidance: guided members are journalled, credited and resumed like any other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np
import pytest
import torch

from agent_rl.config import build
from agent_rl.curriculum import shuffled_epochs
from agent_rl.environment import Environment
from agent_rl.errors import ConfigError
from agent_rl.guidance.config import GuidanceConfig
from agent_rl.imitation import ImitationConfig
from agent_rl.learner.config import ImitationLossConfig, LearnerConfig
from agent_rl.replay.episode import replay
from agent_rl.replay.settings import read_settings
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.opening import open_journal
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.train import train
from agent_rl.train_config import TrainConfig
from agent_rl.types import Message, Step, Task


class Parity(Environment):
    """Two turns of any text, each worth 1 if it has an even length; the best is 2, where `hard` there is nothing."""

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> list[Task]:
        hint = "say again 1 2 3 4"
        return [Task(f"parity-{i}", (Message("user", f"say {i}"),), {"hint": hint}) for i in range(count)]

    async def reset(self, task: Task, seed: int) -> tuple[Message, ...]:
        self._turns = 0
        self._worth = 0.0 if task.data.get("hard") else 1.0
        return task.prompt

    async def step(self, action: Message) -> Step:
        self._turns += 1
        reward = self._worth * float(len(action.content) % 2 == 0)
        return Step((Message("user", "again"),), reward, terminated=self._turns == 2)

    def oracle_action(self) -> Message:
        return Message("assistant", "11")


HINT = GuidanceConfig(kind="hint", success=2.0, up_to=0.9, share=0.5, rounds=2, attempts=2, in_context=False)


def config_of(**changes) -> TrainConfig:
    values = {
        "steps": 4,
        "groups_per_batch": 2,
        "group_size": 3,
        "max_concurrent_episodes": 8,
        "checkpoint_every": 2,
        "deterministic": True,
        "limits": RolloutLimits(max_turns=3, max_response_tokens=8, max_context_tokens=128),
        "learner": LearnerConfig(learning_rate=1e-3, token_budget=256),
        "guidance": HINT,
    }
    return TrainConfig(**{**values, **changes})


def run(run_dir: Path, config: TrainConfig, tasks=None, **options) -> list[dict[str, float]]:
    async def go() -> None:
        torch.set_num_threads(1)
        tokenizer = make_tokenizer(["say again 0123456789 Hint:"], vocab_size=300)
        model = make_model(tokenizer, hidden_size=32, layers=1, heads=1, max_context=128)
        with torch.no_grad():  # random weights rarely end a turn
            model.get_input_embeddings().weight[tokenizer.eos_token_id] *= 25
        await train(
            config,
            run_dir=run_dir,
            model=model,
            tokenizer=tokenizer,
            environment=lambda task: Parity(),
            task_at=shuffled_epochs(tasks or Parity.tasks("train", 5), config.seed),
            **options,
        )

    run_dir.mkdir(exist_ok=True)
    anyio.run(go)
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def groups_of(run_dir: Path):
    with open_journal(run_dir) as journal:
        return journal.load_groups()


def test_it_resumes_exactly(tmp_path: Path) -> None:
    config = config_of()
    whole = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config.model_copy(update={"steps": 2}))
    parts = run(tmp_path / "parts", config, resume=True)
    assert any(row["guidance/guided_groups"] for row in whole)
    for before, after in zip(whole, parts, strict=True):
        for name in before:
            if name.startswith(("learner/", "guidance/", "rollout/reward")):
                assert before[name] == after[name], (before["step"], name)
    assert any(row.get("learner/grad_norm", 0) > 0 for row in whole)
    ours, theirs = groups_of(tmp_path / "whole"), groups_of(tmp_path / "parts")
    assert ours.keys() == theirs.keys()
    for index, group in ours.items():
        for one, other in zip(group.trajectories, theirs[index].trajectories, strict=True):
            assert one.guidance == other.guidance
            assert [t.action for t in one.turns] == [t.action for t in other.turns]


def test_the_journal_has_what_happened_and_the_learner_what_is_trained_on(tmp_path: Path) -> None:
    rows = run(tmp_path / "run", config_of(steps=2))
    assert all(row["guidance/kept_in_context"] == 0 for row in rows)
    guided = [(g, t) for g in groups_of(tmp_path / "run").values() for t in g.trajectories if t.guidance]
    assert guided
    for group, episode in guided:
        assert episode.guidance.text in episode.prompt[-1].content
        opening = int(np.argmax(episode.segments[0].response_mask_T))
        alone = int(np.argmax(group.trajectories[0].segments[0].response_mask_T))
        assert opening > alone, "stored in the context that it was sampled in"
    assert max(row.get("learner/mismatch_abs", 0) for row in rows) > 1e-3, "and trained on in another"
    kept = run(tmp_path / "kept", config_of(steps=2, guidance=HINT.model_copy(update={"in_context": True})))
    assert max(row.get("learner/mismatch_abs", 0) for row in kept) < 1e-4, "unless the guidance stays in the context"


def test_a_guided_episode_can_be_played_again(tmp_path: Path) -> None:
    prefix = GuidanceConfig(kind="prefix", success=2.0, up_to=0.9, share=0.5, attempts=1)
    config = config_of(steps=1, guidance=prefix)
    run(tmp_path / "run", config)
    episodes = [t for g in groups_of(tmp_path / "run").values() for t in g.trajectories if t.guidance]
    assert episodes
    settings = replace(read_settings(tmp_path / "run"), limits=config.limits)
    for episode in episodes:
        assert anyio.run(replay, lambda task: Parity(), episode, settings) is None
        other = replace(episode, guidance=None)
        assert anyio.run(replay, lambda task: Parity(), other, settings) is not None, "without it it went otherwise"


def test_the_hardest_are_imitated_where_nothing_else_can_be_learnt(tmp_path: Path) -> None:
    """ReLIFT: every group fails, so that no row is reinforced, and the demonstrations of their tasks teach."""
    tasks = [replace(task, data={"hard": i < 2}) for i, task in enumerate(Parity.tasks("train", 4))]
    shown = tmp_path / "shown.jsonl"
    answer = {"role": "assistant", "content": "77"}
    chats = {task.id: [{"role": "user", "content": task.prompt[0].content}, answer] for task in tasks}
    lines = [json.dumps({"task": id, "messages": chat}) for id, chat in chats.items()]
    shown.write_text("\n".join(lines))
    config = config_of(
        steps=6,
        guidance=GuidanceConfig(),
        imitation=ImitationConfig(demonstrations=shown, only="hardest", rows=4),
        learner=LearnerConfig(learning_rate=2e-3, minibatches=2, imitation=ImitationLossConfig(coefficient=1.0)),
    )
    rows = run(tmp_path / "hard", config, tasks[:2])
    assert all(row["rollout/groups_trained"] == 0 for row in rows)
    assert rows[-1]["learner/imitation_nll"] < rows[0]["learner/imitation_nll"]
    assert rows[-1]["learner/optimizer_steps"] == 12, "each part of what is imitated has its step"
    shown.write_text("\n".join(line for line in lines if "parity-3" in line))
    rows = run(tmp_path / "others", config, tasks[:2])
    assert not [row for row in rows if "learner/imitation_nll" in row], "demonstrations of other tasks are left alone"


def test_guided_successes_are_only_imitated(tmp_path: Path) -> None:
    changes = {"up_to": 0.0, "attempts": 6, "credit": "imitation"}
    config = config_of(
        steps=2,
        groups_per_batch=6,
        group_size=2,
        guidance=HINT.model_copy(update=changes),
        imitation=ImitationConfig(success=2.0, only="hardest"),
        learner=LearnerConfig(learning_rate=1e-3, imitation=ImitationLossConfig(loss="shaped")),
    )
    rows = run(tmp_path / "run", config)
    assert [row for row in rows if row.get("learner/imitation_nll", 0) > 0]
    assert max(row.get("learner/mismatch_abs", 0) for row in rows) < 1e-4, "reinforced is what nobody helped"


@pytest.mark.parametrize(
    "values",
    [
        {"guidance": {"kind": "hint", "credit": "imitation"}},
        {
            "guidance": {"kind": "hint", "credit": "imitation"},
            "imitation": {"demonstrations": "shown.jsonl"},
            "learner": {"imitation": {}},
        },
    ],
)
def test_what_nobody_would_imitate_is_refused(values) -> None:
    with pytest.raises(ConfigError, match="guided episodes are to be imitated"):
        build(TrainConfig, values)
