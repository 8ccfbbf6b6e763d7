"""What every game promises: solvable, not by chance nor by a constant, deterministic, forkable, with honest splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.evaluate.harness import evaluate
from agent_rl.evaluate.report import Report
from agent_rl.registry import environment_spec
from agent_rl.rollout.agent import MakeAgent, OracleAgent, random_agent
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import Message, Task
from agent_rl_envs.games.game import Game, Malformed, move_of, split_of
from agent_rl_envs.games.wordle import hidden_words

pytestmark = pytest.mark.anyio

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("wordle", {}),
    ("wordle", {"words": 40, "list_words": True}),
    ("twenty_questions", {}),
    ("twenty_questions", {"objects": 30, "list_objects": True, "turns": 8}),
    ("maze", {}),
    ("maze", {"size": 5, "view": "compass"}),
    ("maze", {"size": 9, "open_share": 0.0, "view": "walls"}),
    ("text_navigation", {}),
    ("text_navigation", {"rooms": 9, "locked": True, "distractors": 6}),
    ("text_navigation", {"rooms": 2, "locked": True}),
    ("guess_number", {}),
    ("guess_number", {"high": 1000}),
    ("corridor", {}),
    ("corridor", {"rooms": 6, "moves": 10}),
    ("bandit", {}),
    ("bandit", {"kind": "gaussian", "visitors": 3, "guide": "ucb", "turns": 40}),
    ("sat", {}),
    ("sat", {"level": 11, "attempts": 4}),
    ("sat", {"literals": 2, "clauses": 12, "unsatisfiable_share": 0.5}),
]
IDS = [f"{id}-{'-'.join(map(str, options.values())) or 'default'}" for id, options in OPTIONS]
LIMITS = RolloutLimits(max_turns=200)

games = pytest.mark.parametrize(("id", "options"), OPTIONS, ids=IDS)


async def score(spec: EnvironmentSpec, tasks: list[Task], agent: MakeAgent) -> Report:
    report = await evaluate(spec, tasks, agent, limits=LIMITS)
    assert report.failures == {}
    assert report.overall is not None
    return report


async def opened(spec: EnvironmentSpec, task: Task, seed: int = 0) -> Game[Any, Any]:
    environment = spec(task)
    assert isinstance(environment, Game)
    await environment.reset(task, seed)
    return environment


@games
async def test_the_oracle_solves_every_task_and_chance_does_not(id: str, options: dict[str, Any]) -> None:
    spec = environment_spec(id, options)
    tasks = list(spec.tasks("test", 15, 3))
    oracle = await score(spec, tasks, lambda playing, _: OracleAgent(playing))
    chance = await score(spec, tasks, random_agent)
    assert oracle.overall is not None
    assert chance.overall is not None
    assert oracle.overall.success.value == 1.0
    assert oracle.overall.reward.value == pytest.approx(1.0)
    assert chance.overall.reward.value < 0.75


CONSTANTS = [
    "",
    "done",
    "about",
    "Is it alive?",
    "Is it a dog?",
    "north",
    "go north",
    "look",
    "50",
    "red",
    "11111",
    "0000",
    "1 red north",
]


@games
async def test_no_game_is_won_by_a_constant(id: str, options: dict[str, Any]) -> None:
    spec = environment_spec(id, options)
    tasks = list(spec.tasks("train", 16, 1))
    for text in CONSTANTS:
        total = 0.0
        for task in tasks:
            environment = await opened(spec, task)
            while not (step := await environment.step(Message("assistant", text))).terminated:
                total += step.reward
            total += step.reward
        assert total / len(tasks) <= 0.4, text


@games
async def test_scripted_cheats_are_not_rewarded(id: str, options: dict[str, Any]) -> None:
    spec = environment_spec(id, options)
    rewards: dict[str, list[float]] = {}
    for task in spec.tasks("test", 8, 5):
        for name, messages in (await opened(spec, task)).cheats().items():
            environment, total = await opened(spec, task), 0.0
            for message in messages:
                step = await environment.step(message)
                total += step.reward
                if step.terminated:
                    break
            rewards.setdefault(name, []).append(total)
    assert rewards
    assert all(sum(earned) / len(earned) <= 0.35 for earned in rewards.values()), rewards


@games
async def test_train_and_test_share_no_puzzle_whatever_the_seeds(id: str, options: dict[str, Any]) -> None:
    spec = environment_spec(id, options)
    keys: dict[str, set[str]] = {"train": set(), "test": set()}
    for split, found in keys.items():
        for seed in range(3):
            tasks = spec.tasks(split, 8, seed)
            assert len({task.id for task in tasks}) == len(tasks)
            found |= {str({name: value for name, value in task.data.items() if name != "turns"}) for task in tasks}
    assert keys["train"]
    assert keys["test"]
    assert keys["train"].isdisjoint(keys["test"])


@games
async def test_the_same_seed_gives_the_same_tasks_and_episodes(id: str, options: dict[str, Any]) -> None:
    spec = environment_spec(id, options)
    assert spec.tasks("train", 5, 7) == spec.tasks("train", 5, 7)
    assert [task.data for task in spec.tasks("train", 5, 7)] != [task.data for task in spec.tasks("train", 5, 8)]
    task = spec.tasks("train", 1, 7)[0]

    async def play() -> list[Any]:
        environment, rng = await opened(spec, task, 3), np.random.default_rng(0)
        return [await environment.step(environment.random_action(rng)) for _ in range(1)]

    assert await play() == await play()


@games
async def test_a_fork_goes_on_like_the_original(id: str, options: dict[str, Any]) -> None:
    spec = environment_spec(id, options)
    task = spec.tasks("train", 1, 2)[0]
    original = await opened(spec, task)
    if (await original.step(original.random_action(np.random.default_rng(1)))).terminated:
        return  # games of one move end with it
    fork = await opened(spec, task)
    await fork.restore(await original.snapshot())
    assert fork.state_key() == original.state_key()
    assert _is_plain(fork.state_key()), "the journal keeps state keys"
    for _ in range(200):
        action = original.oracle_action()
        assert fork.oracle_action() == action
        step = await original.step(action)
        assert await fork.step(action) == step
        assert fork.state_key() == original.state_key()
        if step.terminated:
            return
    raise AssertionError("the game does not end")


def _is_plain(key: object) -> bool:
    if isinstance(key, tuple):
        return all(map(_is_plain, key))
    return isinstance(key, str | int | float) and abs(key if not isinstance(key, str) else 0) < 2**63


@games
async def test_malformed_moves_are_explained_and_cost_their_turn(id: str, options: dict[str, Any]) -> None:
    spec = environment_spec(id, options)
    task = spec.tasks("train", 1, 2)[0]
    environment = await opened(spec, task)
    before, turns = environment.state_key(), task.data["turns"]
    for turn in range(turns):
        step = await environment.step(Message("assistant", " \n "))
        assert step.reward == 0
        assert step.info.reward_terms["malformed"] == 1.0
        assert "Say your move" in step.messages[0].content
        assert environment.state_key() == before
        assert step.terminated == (turn == turns - 1)


@games
async def test_weights_are_of_known_terms_and_every_term_is_there(id: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="solvd"):
        environment_spec(id, {**options, "weights": {"solvd": 1.0}})
    spec = environment_spec(id, options)
    known = type((await opened(spec, spec.tasks("train", 1)[0])).config).terms
    weighted = environment_spec(id, {**options, "weights": {"turn": -1.0, "progress": 2.0}})
    environment = await opened(weighted, weighted.tasks("train", 1)[0])
    step = await environment.step(environment.oracle_action())
    assert set(step.info.reward_terms) == set(known)
    assert step.reward == pytest.approx(2 * step.info.reward_terms["progress"] - 1)


@games
async def test_progress_adds_up_to_one_where_the_oracle_solves(id: str, options: dict[str, Any]) -> None:
    spec = environment_spec(id, {**options, "weights": {"progress": 1.0}})
    report = await score(spec, list(spec.tasks("test", 4)), lambda playing, _: OracleAgent(playing))
    assert report.overall is not None
    assert report.overall.reward.value == pytest.approx(1.0)
    assert report.overall.success.value == 1.0


@games
def test_unknown_splits_are_refused(id: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="test, train"):
        environment_spec(id, options).tasks("dev", 1)


def test_options_that_leave_no_puzzle_are_refused() -> None:
    spec = environment_spec("wordle", {"words": 1})
    own = split_of({"word": hidden_words(1)[0]})
    other = "test" if own == "train" else "train"
    assert len(spec.tasks(own, 5)) == 1
    with pytest.raises(UserError, match=f"no puzzle for the split '{other}'"):
        spec.tasks(other, 1)


def test_there_are_as_many_tasks_as_puzzles() -> None:
    train = environment_spec("guess_number", {"high": 50}).tasks("train", 1000)
    test = environment_spec("guess_number", {"high": 50}).tasks("test", 1000)
    assert len(train) + len(test) == 50
    assert {task.data["number"] for task in (*train, *test)} == set(range(1, 51))


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("crane", "crane"),
        ("Let me think.\n\n**crane**", "crane"),
        ("My guess is: crane", "crane"),
        ("Guess: `crane`\n", "crane"),
        ("I will go <move>north</move> now.", "north"),
        ("<answer>a</answer> or <answer>b</answer>", "b"),
        ("The final answer: 10110", "10110"),
    ],
)
def test_a_move_is_found_in_what_models_write(text: str, move: str) -> None:
    assert move_of(text) == move


def test_no_text_is_no_move() -> None:
    with pytest.raises(Malformed):
        move_of("  \n ")
