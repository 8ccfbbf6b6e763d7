"""Our environments behind gymnasium: its own checker passes, episodes are ours, nothing is left running."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import agent_rl.gym
from agent_rl.environment import Environment
from agent_rl.errors import EnvironmentFailure, UserError
from agent_rl.gym import seat
from agent_rl.registry import environments
from agent_rl.testing.environments import FaultyEnvironment, GuessNumber
from agent_rl.types import Task

GUESS = "agent_rl.testing.environments:GuessNumber"
COUNT = "agent_rl.testing.environments:CountUp"


@pytest.fixture
def guess() -> Iterator[agent_rl.gym.GymnasiumEnv]:
    env = agent_rl.gym.GymnasiumEnv(GUESS, tasks=5, render_mode="ansi")
    yield env
    env.close()


def test_every_environment_has_a_name_in_gymnasium():
    agent_rl.gym.register_all()  # again, for what other tests have registered since the import
    names = {agent_rl.gym.gymnasium_id(id) for id in environments()}
    assert "agent_rl/SqlLookup-v0" in names
    assert names <= set(gymnasium.registry)


def test_gymnasiums_checker_passes_without_a_warning():
    env = gymnasium.make("agent_rl/SqlLookup-v0", render_mode="ansi")
    check_env(env.unwrapped)
    env.close()


def test_make_needs_no_import_and_importing_is_cheap():
    program = (
        "import sys, gymnasium\n"
        "env = gymnasium.make('agent_rl.gym:agent_rl/SqlLookup-v0')\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "env.reset(seed=0)\n"  # left open: its thread must not keep Python from leaving
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_an_episode(guess: agent_rl.gym.GymnasiumEnv):
    text, info = guess.reset(options={"task": 2})
    assert text == "Guess my number. It is from 0 to 99."
    assert info["task"] == "guess-train-2"
    hidden = GuessNumber.tasks("train", 5)[2].data["hidden"]
    assert guess.step(str(hidden - 1) if hidden else "1")[0] in ("higher", "lower")
    text, reward, terminated, truncated, info = guess.step(str(hidden))
    assert (text, reward, terminated, truncated) == ("correct", 1.0, True, False)
    assert info["reward_terms"] == {"found": 1.0}
    assert guess.render().endswith(f"[assistant]\n{hidden}\n\n[user]\ncorrect")


def test_tool_calls_are_written_as_the_parser_reads_them():
    env = agent_rl.gym.GymnasiumEnv(COUNT, options={"turns": 3})
    _, info = env.reset()
    assert info["tools"][0]["function"]["name"] == "add"
    call = '<tool_call>{"name": "add", "arguments": {"amount": 2}}</tool_call>'
    assert env.step(f"<think>two</think>{call}")[0] == "The total is 2."
    assert env.step('<tool_call>{"name": "add"}</tool_call>')[4]["tool_errors"] == ["parse_error"]
    assert env.step("done")[1] == 1.0
    env.close()


def test_seeds_choose_tasks_and_repeat(guess: agent_rl.gym.GymnasiumEnv):
    drawn = [guess.reset(seed=seed)[1]["task"] for seed in (1, 2, 3, 1, 2, 3)]
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) > 1
    assert guess.reset(options={"split": "test", "task": "guess-test-4"})[1]["task"] == "guess-test-4"


def test_several_at_once():
    envs = gymnasium.make_vec("agent_rl/SqlLookup-v0", num_envs=3, vectorization_mode="sync")
    texts, _ = envs.reset(seed=3)
    assert len(texts) == 3
    _, rewards, terminated, _, _ = envs.step(("1", "2", "3"))
    assert rewards.shape == (3,)
    assert terminated.all()
    envs.close()


def test_closing_ends_the_thread():
    before = threading.active_count()
    env = agent_rl.gym.GymnasiumEnv(GUESS)
    env.reset()
    assert threading.active_count() > before
    env.close()
    env.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "agent_rl.gym"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": 5}, "There is no task 5"),
        ({"task": "nothing"}, "None of the 5 train tasks is 'nothing'"),
        ({"split": "trian"}, "Did you mean 'train'"),
        ({"tsak": 1}, "Did you mean 'task'"),
    ],
)
def test_mistakes_are_explained(guess: agent_rl.gym.GymnasiumEnv, options: dict[str, object], message: str):
    with pytest.raises(UserError, match=message):
        guess.reset(options=options)


def test_before_reset(guess: agent_rl.gym.GymnasiumEnv):
    with pytest.raises(gymnasium.error.ResetNeeded):
        guess.step("1")


class Hangs(FaultyEnvironment):
    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> Sequence[Task]:
        return GuessNumber.tasks(split, count, seed)

    def __init__(self) -> None:
        super().__init__(GuessNumber(), {"step": "hang"})


def test_an_environment_that_hangs_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seat, "environment_spec", lambda id, options: Spec(Hangs))
    env = agent_rl.gym.GymnasiumEnv("hangs", timeout_s=0.1)
    env.reset()
    with pytest.raises(EnvironmentFailure, match="step timed out"):
        env.step("1")
    env.close()


class Spec:
    def __init__(self, kind: type[Environment]) -> None:
        self.kind = kind

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        return list(self.kind.tasks(split, count, seed))

    def __call__(self, task: Task) -> Environment:
        return self.kind()


def test_spaces_of_any_text():
    space = agent_rl.gym.AnyText(seed=0)
    assert space.contains("日本 🙂\n" * 1000)
    assert not space.contains(3)
    assert space == agent_rl.gym.AnyText()
    assert space.contains(space.sample())
