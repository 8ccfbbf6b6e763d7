"""Stored episodes again: what a fresh environment answers, what the engine samples, what another reward says."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from pydantic import Field

from agent_rl import cli
from agent_rl.chat.codec import ChatCodec
from agent_rl.config import Config, build, dump_config
from agent_rl.engine.local import LocalEngine
from agent_rl.environment import Environment, EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.evaluate.eval_config import EvalConfig
from agent_rl.evaluate.harness import run
from agent_rl.learner.policy import load_policy
from agent_rl.replay.differences import first_difference, first_token_difference
from agent_rl.replay.episode import model_of, replay, resample
from agent_rl.replay.rescore import load_reward, rescored, summarize
from agent_rl.replay.settings import read_settings
from agent_rl.rollout.context import ContextConfig, policy_agents
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.opening import open_journal
from agent_rl.testing.environments import GuessNumber
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import Message, SamplingParams, Step, StopReason, Task, ToolCall, ToolResult, Trajectory
from agent_rl.wrapper import EnvironmentWrapper

GUESS = f"{GuessNumber.__module__}:GuessNumber"
PARITY = Path(__file__).parents[2] / "integration" / "train_parity.py"
_spec = importlib.util.spec_from_file_location("train_parity", PARITY)
assert _spec is not None
assert _spec.loader is not None
parity = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parity)


# --- a real training run --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training steps of a tiny policy; the checkpoints of versions 1 and 2 are there."""
    folder = tmp_path_factory.mktemp("trained")
    config = parity.parity_config(steps=2, checkpoint_every=1, keep_checkpoints=9)
    dump_config(config, folder / "config.json")
    anyio.run(lambda: parity.train_parity(folder, config))
    return folder


def episodes_of(folder: Path) -> list[Trajectory]:
    with open_journal(folder) as journal:
        return [episode for group in journal.load_groups().values() for episode in group.trajectories]


def finished(folder: Path) -> Trajectory:
    """One that came to its end, after two turns."""
    return next(episode for episode in episodes_of(folder) if episode.terminated)


def sampled_by(folder: Path, version: int) -> list[Trajectory]:
    return [episode for episode in episodes_of(folder) if episode.segments[0].weight_versions_T.max() == version]


def test_a_training_runs_episodes_come_out_again_bit_for_bit(trained: Path):
    settings, episodes = read_settings(trained), episodes_of(trained)
    assert len(episodes) == 16
    for episode in episodes:
        assert anyio.run(replay, lambda task: parity.Parity(), episode, settings) is None
    for episode in sampled_by(trained, 1)[:2]:
        model = model_of(trained, episode, settings)
        assert anyio.run(resample, lambda task: parity.Parity(), episode, settings, model) is None


def test_other_weights_sample_other_bits(trained: Path):
    (first, *_), other = sampled_by(trained, 1), str(trained / "checkpoints" / "step-00000002" / "model")
    found = anyio.run(resample, lambda task: parity.Parity(), first, read_settings(trained), other)
    assert "segment 0, " in str(found)


def test_weights_that_are_gone_are_said_to_be(trained: Path):
    first = episodes_of(trained)[0]
    with pytest.raises(UserError, match="no checkpoint of weight version 0 \\(it has: 1, 2\\): name the model"):
        model_of(trained, first, read_settings(trained))
    (segment,) = first.segments
    mixed_T = np.where(segment.response_mask_T, np.arange(len(segment.token_ids_T)), -1).astype(np.int32)
    mixed = replace(first, segments=(replace(segment, weight_versions_T=mixed_T),))
    with pytest.raises(UserError, match="The weights changed from version"):
        model_of(trained, mixed, read_settings(trained))
    with pytest.raises(UserError, match="has no tokens"):
        model_of(trained, replace(first, segments=()), read_settings(trained))


# --- what counts as a difference ------------------------------------------------------------------------------------


class Changed(Environment):
    """Parity with another answer, reward or end from the second turn on."""

    def __init__(self, what: str) -> None:
        self._inner, self._what, self._turns = parity.Parity(), what, 0

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> Sequence[Task]:
        return parity.Parity.tasks(split, count, seed)

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        prompt = await self._inner.reset(task, seed)
        return (Message("user", "say"),) if self._what == "prompt" else prompt

    async def step(self, action: Message) -> Step:
        self._turns += 1
        step = await self._inner.step(action)
        if self._turns < 2:
            return step._replace(terminated=self._what == "sooner")
        if self._what == "observations":
            return step._replace(messages=(Message("user", "Again"),))
        if self._what == "reward":
            return step._replace(reward=step.reward + 1e-9)
        return step._replace(terminated=self._what != "later", truncated=self._what == "truncated")


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("nothing", "None"),
        ("prompt", "prompt: stored"),
        ("observations", "turn 1, observations: stored"),
        ("reward", "turn 1, reward: stored"),
        ("sooner", "turns: stored 2, now 1"),
        ("later", "stop reason: stored 'terminated', now 'failure'"),
    ],
)
def test_the_first_difference_is_found(trained: Path, what: str, where: str):
    found = anyio.run(replay, lambda task: Changed(what), finished(trained), read_settings(trained))
    assert str(found).startswith(where)


def test_an_episode_that_its_clock_ended_is_the_same_as_far_as_it_went(trained: Path):
    episode = finished(trained)
    cut = replace(episode, turns=episode.turns[:1], stop_reason=StopReason.TIME_LIMIT)
    assert anyio.run(replay, lambda task: parity.Parity(), cut, read_settings(trained)) is None
    truncated = replace(cut, stop_reason=StopReason.ENVIRONMENT_TRUNCATED)
    assert anyio.run(replay, lambda task: parity.Parity(), truncated, read_settings(trained)) is not None


async def played(folder: Path, limits: RolloutLimits) -> list[Trajectory]:
    """Episodes of the run's policy under other limits."""
    policy, tokenizer = load_policy(str(folder / "checkpoints" / "step-00000001" / "model"))
    async with LocalEngine(policy, max_batch=1, max_context=96) as engine:
        agents = policy_agents(engine, ChatCodec(tokenizer, "hermes"), SamplingParams(), ContextConfig())
        return [
            await run_episode(
                lambda task: parity.Parity(), agents, task, group_index=0, member=index, seed=index, limits=limits
            )
            for index, task in enumerate(parity.Parity.tasks("train", 5))
        ]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (RolloutLimits(max_turns=1, max_response_tokens=8), StopReason.MAX_TURNS),
        (RolloutLimits(max_context_tokens=24, max_response_tokens=8), StopReason.MAX_TOKENS),
        (RolloutLimits(max_response_tokens=2), StopReason.RESPONSE_LENGTH),
    ],
)
def test_an_episode_that_a_limit_ended_ends_there_again(trained: Path, limits: RolloutLimits, reason: StopReason):
    settings = replace(read_settings(trained), limits=limits)
    episodes = [episode for episode in anyio.run(played, trained, limits) if episode.stop_reason is reason]
    assert episodes
    for episode in episodes:
        assert anyio.run(replay, lambda task: parity.Parity(), episode, settings) is None


def test_tokens_are_compared_bit_by_bit():
    episode = make_trajectory([Played(sampled=3), Played(sampled=2)])
    assert first_token_difference(episode, episode) is None
    (segment,) = episode.segments
    logprobs_T = segment.rollout_logprobs_T.copy()
    logprobs_T[2] = np.nextafter(logprobs_T[2], np.float32(0))
    nearly = replace(episode, segments=(replace(segment, rollout_logprobs_T=logprobs_T),))
    assert str(first_token_difference(episode, nearly)).startswith("segment 0, log-prob 2: stored -0.5, now -0.49999")
    shorter = replace(segment, **{name: getattr(segment, name)[:-1] for name in segment.__dataclass_fields__})
    assert str(first_token_difference(episode, replace(episode, segments=(shorter,)))).endswith("stored 6, now None")
    assert str(first_token_difference(episode, replace(episode, segments=()))) == "segments: stored 1, now 0"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"state_key": "other"}, "turn 1, state key"),
        ({"action": Message("assistant", "other")}, "turn 1, action"),
        ({"tool_results": (ToolResult(ToolCall("a", "look", {}), "4", None, 0.0),)}, "turn 1, tool results"),
        ({"observations": (Message("user", "other"),)}, "turn 1, observations"),
        ({"reward_terms": {"other": 1.0}}, "turn 1, reward terms"),
        ({"reward": 1e-9}, "turn 1, reward"),
    ],
)
def test_every_part_of_a_turn_is_compared(change: dict[str, Any], where: str):
    episode = make_trajectory([Played(), Played()])
    first, second = episode.turns
    found = first_difference(episode, replace(episode, turns=(first, replace(second, **change))))
    assert found is not None
    assert found.where == where


def test_times_are_no_difference():
    episode = make_trajectory([Played(), Played(reward=1.0)])
    later = replace(episode, turns=tuple(replace(turn, began_s=5.0, step_s=9.0) for turn in episode.turns))
    assert first_difference(episode, later) is None


# --- another reward -------------------------------------------------------------------------------------------------


def shortest(episode: Trajectory) -> float:
    return float(len(episode.turns) == 1)


def test_flips_and_means_by_hand(tmp_path: Path):
    won, slow, lost, failed = (
        make_trajectory([Played(reward=1.0)], member=0),
        make_trajectory([Played(), Played(reward=1.0)], member=1),
        make_trajectory([Played()], member=0),
        make_trajectory([Played()], member=1, failed=True),
    )
    groups = [make_group(won, slow, index=0), make_group(replace(lost, group_index=1), failed, index=1)]
    found = summarize(rescored(groups, shortest), 1.0, tmp_path / "rows.jsonl")
    assert (found.old.value, found.new.value, found.episodes) == (0.5, 0.75, 3)
    assert [(row["group"], row["member"]) for row in found.gained] == [(1, 0)]
    assert [(row["group"], row["member"]) for row in found.lost] == [(0, 1)]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["old"], row["new"]) for row in rows] == [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda episode: 1 / 0, "The reward failed on episode 0.0: ZeroDivisionError"),
        (lambda episode: float("nan"), "must be a finite number"),
        (lambda episode: None, "TypeError"),
    ],
)
def test_a_reward_that_fails_is_named(reward, message: str):
    with pytest.raises(UserError, match=message):
        list(rescored([make_group(make_trajectory([Played()]))], reward))


def test_a_reward_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"package\.module:function"):
        load_reward("shortest")
    with pytest.raises(UserError, match="has no 'shortes'"):
        load_reward(f"{__name__}:shortes")
    with pytest.raises(UserError, match="no valid episode"):
        summarize([], 1.0)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    fields = {"environment": GUESS, "environment_options": {"high": 20}, "agent": "random", "tasks": 4, "samples": 2}
    run(build(EvalConfig, fields | {"run_dir": str(folder), "limits": {"max_turns": 4}}))
    return folder


def test_the_command_plays_an_episode_again(evaluated: Path, capsys: pytest.CaptureFixture[str]):
    for episode in ("0.0", "3.1"):
        assert cli.main(["replay", str(evaluated), episode]) == 0
        assert capsys.readouterr().out == "environment: the same\n"


def test_the_command_knows_the_environment_of_a_training_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Its options and wrappers too; given options win."""
    config = parity.parity_config(steps=1, groups_per_batch=1, group_size=2)
    spec = EnvironmentSpec(Worded, Words(word="well")).wrapped(Louder)
    dump_config(config, tmp_path / "config.json")
    anyio.run(lambda: parity.train_parity(tmp_path, config, spec))
    assert episodes_of(tmp_path)[0].prompt[0].content == "WELL"
    for episode in ("0.0", "0.1"):
        assert cli.main(["replay", str(tmp_path), episode]) == 0
        assert capsys.readouterr().out == "environment: the same\n"
    assert cli.main(["replay", str(tmp_path), "0.0", "--environment-options", "word", "no"]) == 1
    assert "environment: prompt: stored" in capsys.readouterr().out


class Words(Config):
    word: str = Field("", description="How it begins.")


class Worded(parity.Parity):
    config_type = Words

    def __init__(self, config: Words) -> None:
        self._word = config.word

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0, *, config: Words) -> list[Task]:
        return super().tasks(split, count, seed)

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        await super().reset(task, seed)
        return [Message("user", self._word)]


class Louder(EnvironmentWrapper):
    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        return [replace(message, content=message.content.upper()) for message in await super().reset(task, seed)]


def test_an_evaluation_stores_its_environment(evaluated: Path):
    with open_journal(evaluated) as journal:
        assert journal.environment() == {"kind": GUESS, "options": {"high": 20}, "wrappers": []}


def test_the_command_shows_the_first_difference(evaluated: Path, capsys: pytest.CaptureFixture[str]):
    other = f"{Relabelled.__module__}:Relabelled"
    assert cli.main(["replay", str(evaluated), "0.0", "--environment", other]) == 1
    assert "environment: turn 0, observations: stored" in capsys.readouterr().out


class Relabelled(GuessNumber):
    async def step(self, action: Message) -> Step:
        return (await super().step(action))._replace(messages=(Message("user", "other"),))


def test_the_command_scores_with_another_reward(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "other_rewards.py").write_text(
        "def turns(episode):\n    return 1.0 if len(episode.turns) < 9 else 0.0\n"
    )
    monkeypatch.chdir(tmp_path)
    before = {path.name: path.read_bytes() for path in evaluated.glob("store.db*")}
    arguments = ["replay", str(evaluated), "--reward", "other_rewards:turns", "--output", "rows.jsonl"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "1.000 " in out
    assert "0 no longer" in out
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 8
    assert before["store.db"] == (evaluated / "store.db").read_bytes()
    assert cli.main(["replay", str(evaluated), "2.1", "--reward", "other_rewards:turns"]) == 0
    assert "1 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the run's folder and the episode"),
        (["{run}"], "name the episode"),
        (["{run}", "first"], "write GROUP.MEMBER"),
        (["{run}", "9.0"], "There is no episode 9.0"),
        (["{run}", "0.0", "--engine"], "has no tokens"),
        (["{run}", "0.0", "--output", "x"], "output is for the rows"),
        (["nowhere", "0.0"], "There are no episodes in nowhere"),
    ],
)
def test_mistakes_are_one_sentence(
    evaluated: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["replay", *(argument.format(run=evaluated) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
