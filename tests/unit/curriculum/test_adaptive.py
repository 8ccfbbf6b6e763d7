"""What groups play is decided in logical order, once, and survives being written down."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.batches import assemble
from agent_rl.credit import get_estimator
from agent_rl.curriculum import Curriculum, shuffled_epochs
from agent_rl.curriculum.adaptive import AdaptiveCurriculum
from agent_rl.curriculum.config import CurriculumConfig
from agent_rl.curriculum.domains import Domains
from agent_rl.errors import ConfigError
from agent_rl.rollout.control import RolloutControl
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.manager import RolloutManager
from agent_rl.rollout.order import ConsumptionOrder
from agent_rl.rollout.staleness import StalenessGate
from agent_rl.seeding import stream
from agent_rl.store.state import write_file
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import Group, Task, Trajectory

TASKS = [Task(f"t{i}", (), environment="e", tags=(f"level:{i % 3}", "x")) for i in range(12)]
LIMITS = RolloutLimits(max_turns=8)
EVERYTHING = {"sizes": "gvm", "first_turns": 2, "growth_steps": 4, "domain": "level:"}
ESTIMATOR = get_estimator("grpo")


def opened(group_size: int = 4, change: Callable[..., Any] = lambda sampler: sampler, **options: Any) -> Curriculum:
    config = CurriculumConfig(**options)
    return config.open(TASKS, seed=3, group_size=group_size, least=2, limits=LIMITS, success=1.0, change=change)


def played(index: int, task: Task, size: int) -> Group:
    """Rewards that depend on nothing but the group."""
    rng = stream(index, task.id)
    difficulty = int(task.tags[0][-1])
    members = [make_trajectory([Played(float(rng.random() > difficulty / 3))], member=m) for m in range(size)]
    return replace(make_group(*members, index=index), task=task)


def learn(curriculum: Curriculum, groups: list[Group]) -> None:
    trained = [group for group in groups if group.valid]
    curriculum.observe(groups, {g.index: rows for g, rows in zip(trained, ESTIMATOR(trained), strict=True)})


def play_on(curriculum: Curriculum, steps: range, batch: int = 3) -> list[tuple[str, int]]:
    """What the groups of these steps played; synchronous."""
    found: list[tuple[str, int]] = []
    for step in steps:
        indices = range(step * batch, (step + 1) * batch)
        found += [(curriculum.task_at(i).id, curriculum.group_size(i)) for i in indices]
        learn(curriculum, [played(i, curriculum.task_at(i), curriculum.group_size(i)) for i in indices])
        curriculum.admit(batch)
    return found


@given(
    kind=st.sampled_from(["none", "sec", "dump", "domain_weights", "band", "weakness"]),
    domain=st.sampled_from(["level:", "task"]),
    stop=st.integers(1, 6),
    ahead=st.integers(0, 5),
)
@settings(max_examples=25)
def test_a_resumed_curriculum_goes_on_as_if_it_had_not_stopped(
    tmp_path_factory: pytest.TempPathFactory, kind: str, domain: str, stop: int, ahead: int
):
    """A checkpoint is written after a step is observed and before its slots are free, with other groups in flight."""
    options = {**EVERYTHING, "kind": kind, "domain": domain}
    whole = opened(**options)
    whole.begin(3 + ahead)
    expected = play_on(whole, range(8))

    first = opened(**options)
    first.begin(3 + ahead)
    found = play_on(first, range(stop - 1))
    indices = range((stop - 1) * 3, stop * 3)
    found += [(first.task_at(i).id, first.group_size(i)) for i in indices]
    learn(first, [played(i, first.task_at(i), first.group_size(i)) for i in indices])
    path = tmp_path_factory.mktemp("state") / "state.pt"
    write_file(path, first.state_dict())

    second = opened(**options)
    second.load_state_dict(torch.load(path, weights_only=True))
    second.begin(3 + ahead)
    found += play_on(second, range(stop, 8))
    assert found == expected
    assert second.metrics() == whole.metrics()


def test_a_run_goes_on_although_groups_overtook_others():
    whole, parts = opened(kind="sec", domain="level:"), opened(kind="sec", domain="level:")
    for curriculum in (whole, parts):
        curriculum.begin(6)
        learn(curriculum, [played(i, curriculum.task_at(i), 4) for i in (0, 1, 4)])
    resumed = opened(kind="sec", domain="level:")
    resumed.load_state_dict(parts.state_dict())
    resumed.begin(6)
    whole.admit(3)
    for index in (2, 3, 5, 6, 7, 8):
        assert resumed.task_at(index) == whole.task_at(index)
    with pytest.raises(KeyError):
        resumed.task_at(9)


async def train_somehow(timing: int, concurrency: int) -> list[tuple[int, str, int]]:
    """The loop of `agent_rl.train` around groups that take any time: what each of them played, in logical order."""
    curriculum = opened(kind="sec", domain="level:", options={"temperature": 0.1}, sizes="gvm")
    delays, size = random.Random(timing), 4
    gate, order = StalenessGate(2, size), ConsumptionOrder(size, 2)

    async def play(task: Task, *, group_index: int, member: int, seed: int) -> Trajectory:
        for _ in range(delays.randrange(4)):
            await anyio.lowlevel.checkpoint()
        return played(group_index, task, member + 1).trajectories[member]

    curriculum.begin(gate.capacity)
    manager = RolloutManager(
        play,
        curriculum.task_at,
        group_size=curriculum.group_size,
        gate=gate,
        order=order,
        seed=0,
        control=RolloutControl(concurrency),
    )

    def drop() -> None:
        order.drop()
        curriculum.admit(1)
        gate.release()

    found: list[tuple[int, str, int]] = []
    async with manager:
        steps = 0
        async for batch in assemble(manager.groups(), size, 2, drop):
            found += [(g.index, g.task.id, len(g.trajectories)) for g in batch.groups]
            credit = ESTIMATOR(batch.trained)
            curriculum.observe(batch.groups, {g.index: a for g, a in zip(batch.trained, credit, strict=True)})
            steps += 1
            if steps == 20:
                break
            order.finish_batch()
            curriculum.admit(batch.held)
            gate.release(batch.held)
    return found


def test_what_groups_play_depends_on_no_timing():
    first = anyio.run(train_somehow, 0, 64)
    assert [index for index, _, _ in first] == list(range(len(first)))
    assert len({size for _, _, size in first}) > 1
    for timing, concurrency in ((1, 64), (2, 3), (3, 1)):
        assert anyio.run(train_somehow, timing, concurrency) == first


def test_domains_are_drawn_by_weight_and_their_tasks_in_epochs():
    curriculum = opened(kind="sec", domain="level:", options={"temperature": 0.01, "learning_rate": 1.0})
    curriculum.begin(2)
    easy = [0.0, 1.0, 0.0, 1.0]
    index = next(i for i in (0, 1))
    level = curriculum.task_at(index).tags[0]
    group = make_group(*(make_trajectory([Played(r)], member=m) for m, r in enumerate(easy)), index=index)
    learn(curriculum, [replace(group, task=curriculum.task_at(index))])
    assert curriculum.metrics()[f"weight/{level}"] > 0.99
    assert curriculum.metrics()[f"share/{level}"] == 1.0
    assert curriculum.metrics()["effective_domains"] < 1.1
    curriculum.admit(8)
    drawn = Counter(curriculum.task_at(i).id for i in range(2, 10))
    assert len(drawn) == 4, "all four tasks of the level, before any comes again"
    assert max(drawn.values()) <= 3


def test_what_was_not_trained_on_taught_nothing_and_failures_say_nothing():
    curriculum = opened(kind="sec", domain="task", options={"learning_rate": 1.0})
    curriculum.begin(3)
    lost = make_group(*(make_trajectory([Played()], member=m, failed=True) for m in range(4)), index=1)
    groups = [played(0, curriculum.task_at(0), 4), lost, played(2, curriculum.task_at(2), 4)]
    curriculum.observe(groups, {})
    assert set(curriculum.state_dict()["weights"]["q_D"]) == {0.0}
    assert curriculum.state_dict()["admitted"] == {}


def test_limits_are_those_of_the_step_in_which_a_group_was_admitted():
    curriculum = opened(first_turns=2, growth_steps=4)
    curriculum.begin(4)
    seen: dict[int, int] = {}

    async def play(task: Task, *, group_index: int, member: int, seed: int, limits: RolloutLimits = LIMITS) -> Any:
        seen[group_index] = limits.max_turns

    within = curriculum.within_limits(play)
    for step in range(5):
        learn(curriculum, [played(i, curriculum.task_at(i), 4) for i in (2 * step, 2 * step + 1)])
        curriculum.admit(2)
        for index in range(2 * step + 2, 2 * step + 6):
            anyio.run(lambda i=index: within(TASKS[0], group_index=i, member=0, seed=0))
    assert [seen[i] for i in range(2, 14)] == [2, 2, 2, 2, 4, 4, 6, 6, 8, 8, 8, 8]
    assert curriculum.metrics()["max_turns"] == 8
    assert opened().within_limits(play) is play


def test_without_options_tasks_come_in_shuffled_epochs_and_may_be_changed():
    plain = shuffled_epochs(TASKS, 3)
    for curriculum in (opened(), opened(first_turns=2, growth_steps=4), opened(sizes="gvm")):
        curriculum.begin(30)
        assert [curriculum.task_at(i) for i in range(30)] == [plain(i) for i in range(30)]
    changed = opened(kind="band", change=lambda sampler: lambda index: replace(sampler(index), data={"index": index}))
    changed.begin(3)
    assert [changed.task_at(i).data["index"] for i in range(3)] == [0, 1, 2]


def test_tasks_of_weak_domains_are_there_for_a_proposer():
    curriculum = opened(kind="weakness", domain="level:", options={"visits": 2})
    assert isinstance(curriculum, AdaptiveCurriculum)
    curriculum.begin(12)
    level = curriculum.task_at(0).tags[0]
    same = [i for i in range(12) if curriculum.task_at(i).tags[0] == level][:2]
    for index, rewards in zip(same, ((1, 0, 0, 0), (0, 0, 0, 0)), strict=True):
        group = make_group(*(make_trajectory([Played(r)], member=m) for m, r in enumerate(rewards)), index=index)
        learn(curriculum, [group])
    assert {task.tags[0] for task in curriculum.weak_tasks} == {level}
    assert curriculum.metrics()["weak_tasks"] == len(curriculum.weak_tasks) == 4
    assert opened(kind="sec").weak_tasks == []  # pyright: ignore


def test_domains_are_tags_environments_tasks_or_the_beginning_of_a_tag():
    assert Domains(TASKS, "tags").names == ("level:0,x", "level:1,x", "level:2,x")
    assert Domains(TASKS, "environment").names == ("e",)
    assert len(Domains(TASKS, "task")) == 12
    levels = Domains([*TASKS, Task("bare", ())], "level:")
    assert levels.names == ("level:0", "level:1", "level:2", "")
    assert levels.members[1] == [1, 4, 7, 10]
    assert [levels.of[i] for i in (0, 4, 12)] == [0, 1, 3]
    with pytest.raises(ConfigError, match=r"begins with 'hops:': .* These tasks have level:0, level:1, level:2, x"):
        Domains(TASKS, "hops:")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sec", "options": {"temprature": 1}}, "option of the curriculum sec.*temperature"),
        ({"kind": "sec", "options": {"temperature": 0}}, "Bad option of the curriculum sec"),
        ({"options": {"temperature": 1}}, "options are those of a kind"),
        ({"domain": "task"}, "nothing looks at domains"),
        ({"growth_steps": 5}, "limits grow from first_turns"),
        ({"first_turns": 5}, "limits grow from first_turns"),
        ({"growth": "linear"}, "nothing grows"),
    ],
)
def test_what_would_be_silent_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        CurriculumConfig(**options)


def test_limits_that_cannot_be_are_refused_before_the_first_episode():
    with pytest.raises(ConfigError, match=r"curriculum\.first_turns=9 is above limits\.max_turns=8: lower it"):
        opened(first_turns=9, growth_steps=2)
    with pytest.raises(ConfigError, match="max_response_tokens"):
        opened(first_context_tokens=100, growth_steps=2)
    with pytest.raises(ConfigError, match="raise group_size=2 above the 2 episodes"):
        opened(group_size=2, sizes="gvm")


def test_gvm_shares_the_episodes_of_groups_that_are_admitted_together():
    curriculum = opened(group_size=8, sizes="gvm", domain="level:")
    curriculum.begin(6)
    for _ in range(6):
        state: dict[str, Any] = curriculum.state_dict()
        indices = sorted(state["admitted"])
        sizes = [curriculum.group_size(i) for i in indices]
        assert sum(sizes) == 48
        assert min(sizes) >= 2
        learn(curriculum, [played(i, curriculum.task_at(i), curriculum.group_size(i)) for i in indices])
        curriculum.admit(6)
    assert curriculum.metrics()["group_size_max"] > curriculum.metrics()["group_size_min"]


def test_states_are_small_plain_values(tmp_path: Path):
    curriculum = opened(kind="dump", **EVERYTHING)
    curriculum.begin(6)
    write_file(tmp_path / "state.pt", curriculum.state_dict())
    again = opened(kind="dump", **EVERYTHING)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    np.testing.assert_equal(again.state_dict(), curriculum.state_dict())
