"""Training with a teacher, demonstrations, interpolated log-probs and a value head on the policy resumes exactly."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import anyio
import pytest

from agent_rl.errors import ConfigError
from agent_rl.imitation import ImitationConfig
from agent_rl.learner.config import DistillationConfig, ImitationLossConfig, LearnerConfig, ReferenceConfig
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.policy import save_policy
from agent_rl.testing.tiny import make_model, make_tokenizer

_spec = importlib.util.spec_from_file_location("train_parity", Path(__file__).with_name("train_parity.py"))
assert _spec is not None
assert _spec.loader is not None
parity = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parity)


def run(run_dir: Path, config, **options) -> list[dict[str, float]]:
    run_dir.mkdir(exist_ok=True)
    anyio.run(lambda: parity.train_parity(run_dir, config, **options))
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def make_teacher(folder: Path, text: str) -> str:
    tokenizer = make_tokenizer([text], vocab_size=300)
    save_policy(make_model(tokenizer, hidden_size=32, layers=1, heads=1, max_context=96, seed=3), tokenizer, folder)
    return str(folder)


def learner(**options) -> LearnerConfig:
    return LearnerConfig(learning_rate=1e-3, token_budget=256, **options)


def test_all_at_once_and_resumed(tmp_path: Path) -> None:
    shown = tmp_path / "shown.jsonl"
    chat = [{"role": "user", "content": "say 1"}, {"role": "assistant", "content": "22"}]
    shown.write_text("".join(json.dumps({"messages": chat}) + "\n" for _ in range(3)))
    taught = DistillationConfig(teacher=make_teacher(tmp_path / "teacher", "say again 0123456789"), coefficient=0.1)
    config = parity.parity_config(
        estimator="token_gae",
        critic=CriticConfig(trunk="policy"),
        imitation=ImitationConfig(demonstrations=shown, rows=2),
        learner=learner(
            old_logprobs="interpolate",
            correction="truncate",
            minibatches=2,
            kl_coefficient=0.1,
            reference=ReferenceConfig(follow=0.5, every=3),
            distillation=taught,
            imitation=ImitationLossConfig(loss="rl_plus"),
        ),
    )
    whole = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config.model_copy(update={"steps": 2}))
    parts = run(tmp_path / "parts", config, resume=True)
    names = ("learner/teacher_kl", "learner/imitation_nll", "learner/value_loss", "critic/explained_variance")
    for before, after in zip(whole, parts, strict=True):
        for name in (*names, "learner/grad_norm"):
            assert before[name] == after[name], (before["step"], name)
    assert whole[-1]["learner/imitation_nll"] < whole[0]["learner/imitation_nll"]


def test_own_successes_are_imitated(tmp_path: Path) -> None:
    config = parity.parity_config(
        steps=2, imitation=ImitationConfig(success=2.0), learner=learner(imitation=ImitationLossConfig())
    )
    rows = run(tmp_path / "run", config)
    assert any(row.get("learner/imitation_nll", 0) > 0 for row in rows)


def test_a_teacher_of_other_tokens_is_refused(tmp_path: Path) -> None:
    taught = DistillationConfig(teacher=make_teacher(tmp_path / "teacher", "other words entirely"))
    with pytest.raises(ConfigError, match="has another tokenizer than the policy"):
        run(tmp_path / "run", parity.parity_config(learner=learner(distillation=taught)))


def test_a_source_of_imitation_without_its_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"set learner\.imitation"):
        parity.parity_config(imitation=ImitationConfig(success=0.5))
