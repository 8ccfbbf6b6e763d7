"""The whole loop on a tiny model: it trains, overlaps within its staleness, and survives kill -9 unchanged."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np
import pytest
import torch

from agent_rl.control import send_command
from agent_rl.errors import UserError
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.utterance_critic import UtteranceCriticConfig
from agent_rl.store.checkpoint import LEARNER, load_latest
from agent_rl.store.opening import open_journal

SCRIPT = Path(__file__).with_name("train_parity.py")
_spec = importlib.util.spec_from_file_location("train_parity", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
parity = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parity)


def run(run_dir: Path, config, **options):
    run_dir.mkdir(exist_ok=True)
    return anyio.run(lambda: parity.train_parity(run_dir, config, **options))


def journal_of(run_dir: Path):
    with open_journal(run_dir) as journal:
        return journal.load_groups(), journal.consumed()


def metrics_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_synchronous_training_is_on_policy_and_changes_the_weights(tmp_path: Path) -> None:
    progress, model = run(tmp_path / "run", parity.parity_config())
    groups, consumed = journal_of(tmp_path / "run")
    assert progress.step == 4
    assert consumed == [(1, (0, 1)), (2, (2, 3)), (3, (4, 5)), (4, (6, 7))]
    for index, group in groups.items():
        for episode in group.trajectories:
            versions = episode.segments[0].weight_versions_T[episode.segments[0].response_mask_T]
            assert set(versions.tolist()) == {index // 2}, "every token of a batch comes from the weights it trains"
    rows = metrics_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["rollout/staleness_max"] == 0 for row in rows if "rollout/staleness_max" in row)
    assert max(row["learner/mismatch_abs"] for row in rows if "learner/mismatch_abs" in row) < 1e-4
    assert any(row.get("learner/grad_norm", 0) > 0 for row in rows)
    checkpoint, _ = load_latest(tmp_path / "run")
    state = torch.load(checkpoint.path / LEARNER / "state.pt")
    for name, parameter in model.named_parameters():
        if name in state["trainable"]:
            assert torch.equal(parameter, state["trainable"][name])


def test_what_the_trainer_saw_is_kept_every_so_many_steps(tmp_path: Path) -> None:
    run(tmp_path / "run", parity.parity_config(trained_tokens_every=2))
    groups, consumed = journal_of(tmp_path / "run")
    with open_journal(tmp_path / "run") as journal:
        seen = {index: journal.trained_tokens(index) for index in groups}
    assert not any(seen[index] for step, batch in consumed if step % 2 for index in batch)
    found = [tokens for step, batch in consumed if step % 2 == 0 for index in batch for tokens in seen[index]]
    assert found
    for tokens in found:
        assert tokens.step == tokens.group_index // 2 + 1
        segment = groups[tokens.group_index].trajectories[tokens.member].segments[tokens.segment]
        sampled_R = segment.rollout_logprobs_T[segment.response_mask_T]
        np.testing.assert_allclose(tokens.logprobs_R, sampled_R, atol=1e-4, err_msg="on policy, both say the same")
        assert (tokens.entropies_R > 0).all()
    assert any((tokens.advantages_R > 0).all() for tokens in found)
    assert any((tokens.advantages_R < 0).all() for tokens in found)


def test_groups_may_lag_but_never_more_than_max_staleness(tmp_path: Path) -> None:
    progress, _ = run(tmp_path / "run", parity.parity_config(steps=6, max_staleness=2, deterministic=False))
    assert progress.step == 6
    groups, consumed = journal_of(tmp_path / "run")
    assert [index for _, batch in consumed for index in batch] == list(range(12)), "logical order, nothing dropped"
    for step, batch in consumed:
        for index in batch:
            for episode in groups[index].trajectories:
                oldest = min(int(s.weight_versions_T[s.response_mask_T].min()) for s in episode.segments)
                assert step - 1 - oldest <= 2


def test_a_step_that_goes_too_far_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quiet = parity.parity_config()
    learner = quiet.learner.model_copy(update={"learning_rate": 0.3, "warmup_steps": 0, "epochs": 3})
    run(tmp_path / "quiet", quiet)
    assert "moved" not in caplog.text
    run(tmp_path / "wild", parity.parity_config(learner=learner))
    assert "nats per token from the one of learner.old_logprobs" in caplog.text


def test_refills_replace_groups_without_signal(tmp_path: Path) -> None:
    def no_signal_in_odd_groups(group):
        return group

    progress, _ = run(
        tmp_path / "run", parity.parity_config(steps=3, refills_per_batch=4), transform_group=no_signal_in_odd_groups
    )
    rows = metrics_of(tmp_path / "run")
    _, consumed = journal_of(tmp_path / "run")
    assert progress.step == 3
    for row, (_, batch) in zip(rows, consumed, strict=True):
        assert row["rollout/groups"] == len(batch)
        assert row["rollout/groups_trained"] <= 2 <= len(batch) <= 6
    assert [index for _, batch in consumed for index in batch] == list(range(sum(len(b) for _, b in consumed)))


def test_transform_group_decides_what_is_learned_but_not_what_is_journaled(tmp_path: Path) -> None:
    def worthless(group):
        silent = [replace(t, turns=tuple(replace(turn, reward=0.0) for turn in t.turns)) for t in group.trajectories]
        return replace(group, trajectories=tuple(silent))

    run(tmp_path / "run", parity.parity_config(steps=2), transform_group=worthless)
    groups, _ = journal_of(tmp_path / "run")
    assert any(episode.reward for group in groups.values() for episode in group.trajectories)
    assert not any("learner/grad_norm" in row for row in metrics_of(tmp_path / "run")), "no group has a signal"


def test_groups_outside_the_reward_band_train_nothing(tmp_path: Path) -> None:
    options = {"shaping": "concise", "shaping_options": {"at": 0.0}, "reward_band": (2.0, 3.0)}
    run(tmp_path / "run", parity.parity_config(steps=1, **options))
    [row] = metrics_of(tmp_path / "run")
    assert row["rollout/groups_trained"] == 0
    assert row["rollout/reward"] <= 1, "the band is of real rewards, and nothing but credit sees shaped ones"


def test_a_batch_in_which_everything_fails_stops_the_run_with_the_owner(tmp_path: Path, monkeypatch) -> None:
    async def broken(self, task, seed):
        raise RuntimeError("no database")

    monkeypatch.setattr(parity.Parity, "reset", broken)
    with pytest.raises(ExceptionGroup) as caught:
        run(tmp_path / "run", parity.parity_config(max_attempts=1))
    errors = caught.value.split(UserError)[0]
    assert errors is not None
    assert "All 8 episodes of a batch failed; the last one is the environment's: setup: RuntimeError: no database" in (
        repr(errors)
    )


@pytest.mark.slow
@pytest.mark.parametrize("death", [("--die-after-step", "3"), ("--die-after-groups", "5"), ("--die-after-groups", "1")])
def test_kill_9_and_resume_equal_the_uninterrupted_run(tmp_path: Path, death: tuple[str, str]) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "killed"), "5"]
    killed = subprocess.run([*command, *death], capture_output=True, text=True, timeout=200, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    _, model = run(tmp_path / "killed", parity.parity_config(steps=5), resume=True)
    _, expected = run(tmp_path / "whole", parity.parity_config(steps=5))
    groups, consumed = journal_of(tmp_path / "killed")
    expected_groups, expected_consumed = journal_of(tmp_path / "whole")
    assert consumed == expected_consumed
    assert groups.keys() == expected_groups.keys()
    for index, group in groups.items():
        for episode, twin in zip(group.trajectories, expected_groups[index].trajectories, strict=True):
            assert [s.token_ids_T.tolist() for s in episode.segments] == [s.token_ids_T.tolist() for s in twin.segments]
            assert [t.reward for t in episode.turns] == [t.reward for t in twin.turns]
    for (name, parameter), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other), name
    assert [row["step"] for row in metrics_of(tmp_path / "killed")] == [1, 2, 3, 4, 5]


def test_resuming_with_more_steps_continues_where_it_stopped(tmp_path: Path) -> None:
    run(tmp_path / "run", parity.parity_config(steps=2))
    progress, model = run(tmp_path / "run", parity.parity_config(steps=4), resume=True)
    _, expected = run(tmp_path / "whole", parity.parity_config(steps=4))
    assert progress.step == 4
    for parameter, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other)


@pytest.mark.slow
def test_a_run_that_an_operator_stops_resumes_as_if_it_had_not_been(tmp_path: Path) -> None:
    async def stopped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_soon, tmp_path / "run")
            progress, _ = await parity.train_parity(tmp_path / "run", parity.parity_config(steps=50))
        return progress

    (tmp_path / "run").mkdir()
    progress = anyio.run(stopped)
    assert 0 < progress.step < 50
    checkpoint, _ = load_latest(tmp_path / "run")
    assert checkpoint.step == progress.step, "the last step is in a checkpoint"
    steps = progress.step + 2
    resumed, model = run(tmp_path / "run", parity.parity_config(steps=steps), resume=True)
    whole, expected = run(tmp_path / "whole", parity.parity_config(steps=steps))
    assert resumed.step == whole.step == steps
    assert journal_of(tmp_path / "run")[1] == journal_of(tmp_path / "whole")[1]
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


async def stop_soon(run_dir: Path) -> None:
    def has_trained() -> bool:
        path = run_dir / "metrics.jsonl"
        return path.exists() and bool(path.read_text())

    with anyio.fail_after(60):
        while not has_trained():  # noqa: ASYNC110  # no event tells the test
            await anyio.sleep(0.01)
        assert (await send_command(run_dir, ["stop"]))["stopping"]


@pytest.mark.parametrize("estimator", ["token_gae", "turn_gae", "bi_level_gae"])
def test_a_critic_learns_beside_the_policy_and_resumes_exactly(tmp_path: Path, estimator: str) -> None:
    critic = CriticConfig(learning_rate=1e-3, alone_steps=1)
    config = parity.parity_config(steps=4, estimator=estimator, critic=critic)
    run(tmp_path / "whole", config)
    run(tmp_path / "parts", config.model_copy(update={"steps": 2}))
    run(tmp_path / "parts", config, resume=True)
    whole, parts = metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "parts")
    assert all(np.isfinite(row["critic/explained_variance"]) for row in whole)
    assert all(row["critic/grad_norm"] > 0 for row in whole[1:]), "the first batch has no reward to learn from"
    assert not any(name.startswith("learner/") for name in whole[0]), "the critic learns alone at first"
    assert whole[1]["learner/grad_norm"] > 0
    for before, after in zip(whole, parts, strict=True):
        for name in ("critic/loss", "critic/explained_variance", "learner/grad_norm"):
            assert before.get(name) == after.get(name), (before["step"], name)


@pytest.mark.parametrize("options", [{}, {"loss": "hl_gauss", "double": "soft_min", "token_baseline": True}])
def test_archer_resumes_exactly_with_its_replay_and_target(tmp_path: Path, options: dict[str, object]) -> None:
    critic = UtteranceCriticConfig(
        **{"learning_rate": 1e-3, "alone_steps": 1, "updates": 2, "groups_per_update": 2, "capacity": 5, **options}
    )
    config = parity.parity_config(steps=4, estimator="archer", utterance_critic=critic)
    _, expected = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config.model_copy(update={"steps": 2}))
    _, model = run(tmp_path / "parts", config, resume=True)
    whole, parts = metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "parts")
    assert not any(name.startswith("learner/") for name in whole[0]), "the critic learns alone at first"
    assert whole[1]["learner/grad_norm"] > 0
    assert ("critic/baseline_loss" in whole[0]) == bool(options)
    assert all(np.isfinite(row["critic/q_explained_variance"]) for row in whole)
    for before, after in zip(whole, parts, strict=True):
        learned = {name for name in before if name.startswith(("critic/", "learner/"))}
        assert {name: before[name] for name in learned} == {name: after.get(name) for name in learned}
    for parameter, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other)
