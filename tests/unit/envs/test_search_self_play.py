"""Search self-play: only questions that their own documents answer count, and each role earns what is its own."""

from __future__ import annotations

import numpy as np
import pytest

from agent_rl.chat.codec import ChatCodec
from agent_rl.credit import get_estimator, get_shaping
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.environment import EnvironmentSpec
from agent_rl.learner.demonstrations import demonstration_rows
from agent_rl.rollout.agent import OracleAgent, PolicyAgent
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl.types import Group, Message, SamplingParams, Step, StopReason, Task, Trajectory
from agent_rl_envs.search import SelfPlayConfig, SelfPlayEnvironment

pytestmark = pytest.mark.anyio

CONFIG = SelfPlayConfig(hops=1, attempts=3, role_turns=4)
SPEC = EnvironmentSpec(SelfPlayEnvironment, CONFIG)
LIMITS = RolloutLimits(max_turns=40, max_response_tokens=200, max_context_tokens=8000)


@pytest.fixture(scope="module")
def task() -> Task:
    return SPEC.tasks("train", 1)[0]


async def play(task: Task, make_agent, spec=SPEC, member: int = 0) -> Trajectory:
    async with tool_services(ToolsConfig()):
        return await run_episode(spec, make_agent, task, group_index=0, member=member, seed=0, limits=LIMITS)


class Choosing:
    """Plays like the oracle, but for what is said at these tags."""

    def __init__(self, environment, instead):
        self.environment, self.instead = environment, dict(instead)

    def oracle_action(self):
        said = self.instead.get(self.environment._play.tag)
        return said(self.environment) if said else self.environment.oracle_action()


def acting(**instead):
    return lambda environment, _: OracleAgent(
        Choosing(environment, {k.replace("_", "/"): v for k, v in instead.items()})
    )


def says(text: str):
    return lambda _: Message("assistant", text)


async def test_the_proposer_is_told_the_answer_and_the_solvers_only_the_question(task):
    episode = await play(task, acting())
    gold = task.data["answers"][0]
    assert (episode.stop_reason, episode.failure) == (StopReason.TERMINATED, None)
    assert [turn.tag for turn in episode.turns] == [
        *["proposer"] * 2,
        "check",
        *(f"solver/{k}" for k in range(3) for _ in range(2)),
    ]
    assert gold in episode.prompt[-1].content
    openings = [
        turn.observations for turn in episode.turns if turn.observations[:1] and turn.observations[0].role == "system"
    ]
    check, *solvers = [opening[-1].content for opening in openings]
    assert episode.turns[0].observations[0].content in check
    assert check.endswith(task.data["question"])
    assert solvers == [task.data["question"]] * 3
    assert episode.turns[-1].reward_terms == {"valid": 1.0, "solved": 1.0, "proposer": pytest.approx(0.1)}
    assert episode.reward == 3.0


@pytest.mark.parametrize(
    "instead",
    [
        {"proposer": says("<question>Which town is it?</question>")},  # without a search
        {"check": says("<answer>somewhere else</answer>")},  # its documents do not give the answer
        {"check": lambda env: env._call("search", query="more")},  # they have to do
        {"check": says("no idea")},
        {"proposer": says("still thinking")},  # for ever
    ],
)
async def test_other_questions_do_not_count(task, instead):
    episode = await play(task, acting(**instead))
    assert episode.stop_reason is StopReason.TERMINATED
    assert not any(turn.tag.startswith("solver") for turn in episode.turns)
    assert (episode.reward, episode.turns[-1].reward_terms["proposer"]) == (0.0, 0.0)
    assert len(episode.turns) <= CONFIG.role_turns


async def test_a_question_that_names_its_answer_does_not_count(task):
    gold = task.data["answers"][0]

    def proposes(environment):
        asked = environment.oracle_action()
        return asked if asked.tool_calls else Message("assistant", f"<question>Is it {gold.upper()}?</question>")

    episode = await play(task, acting(proposer=proposes))
    assert [turn.tag for turn in episode.turns] == ["proposer"] * 2
    assert episode.turns[-1].reward_terms["valid"] == 0.0


async def test_solvers_are_compared_with_each_other_and_proposers_with_their_siblings(task):
    wrong = says("<answer>nowhere</answer>")
    hard = await play(task, acting(solver_0=wrong, solver_2=lambda env: env._call("search", query="on and on")))
    easy = await play(task, acting(), member=1)
    assert [turn.reward for turn in hard.turns if turn.reward] == [1.0], "the second solver's"
    assert hard.turns[-1].reward_terms["proposer"] == pytest.approx(0.1 + 2 / 3)
    group = get_shaping("role_rewards")(Group(0, task, (hard, easy)))
    by_role = {}
    for trajectory in group.trajectories:
        for turn in trajectory.turns:
            key = trajectory.member, turn.tag
            by_role[key] = by_role.get(key, 0.0) + turn.reward
    assert by_role[0, "proposer"] - by_role[1, "proposer"] == pytest.approx(2 / 3)
    assert [by_role[0, f"solver/{k}"] for k in range(3)] == [0.0, 1.0, 0.0]
    assert by_role[0, "check"] == by_role[1, "check"] == 0.0


async def test_each_role_has_a_row_of_its_own_that_sees_nothing_of_the_others(task):
    """With tokens: what the oracle says, sampled by a scripted engine, is in one segment per conversation."""
    codec = ChatCodec(make_tokenizer([task.prompt[0].content, task.data["question"]]))
    oracle = await play(task, acting())
    said = [codec.encode_action(turn.action).tolist() for turn in oracle.turns]
    engine = ScriptedEngine(lambda request: said.pop(0))
    episode = await play(task, lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key))
    assert [turn.segment for turn in episode.turns] == [0, 0, 1, 2, 2, 3, 3, 4, 4]
    assert episode.reward == oracle.reward
    gold = task.data["answers"][0]
    asked = codec.decode(episode.segments[2].token_ids_T[: episode.turns[3].start])
    assert task.data["question"] in asked
    assert gold not in asked
    rows = demonstration_rows(codec, oracle, SPEC(task).tools)
    assert len(rows) == 5
    assert gold not in codec.decode(rows[2].token_ids_T[: np.flatnonzero(rows[2].response_mask_T)[0]])
    [advantages] = get_estimator("roles", {"scale": 0.0})([Group(0, task, (episode, episode))])
    assert not any(np.any(row_T) for rows in advantages for row_T in rows), "equals teach nothing"


async def test_the_test_split_asks_the_questions_of_search():
    [task] = SPEC.tasks("test", 1)
    episode = await play(task, lambda environment, _: OracleAgent(environment))
    assert (episode.reward, {turn.tag for turn in episode.turns}) == (1.0, {""})


async def test_a_snapshot_continues_in_the_middle_of_a_role(task):
    async with tool_services(ToolsConfig()):
        one, other = SPEC(task), SPEC(task)
        for environment in (one, other):
            await environment.reset(task, 0)
        for _ in range(4):
            await one.step(one.oracle_action())
        await other.restore(await one.snapshot())
        assert other.state_key() == one.state_key()
        steps: list[Step] = []
        while not (steps and steps[-1].terminated):
            steps.append(await other.step(other.oracle_action()))
        assert steps[-1].info.reward_terms["solved"] == 1.0
        for environment in (one, other):
            await environment.close()
