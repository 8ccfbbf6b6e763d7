"""Laws that every credit estimator keeps, checked on batches of made-up episodes. For those of your own, too.

    check_estimator(get_estimator("mine", {"gamma": 0.9}))

Episodes of a plan have turns with and without tokens, internal turns, forks, rewards of 0, states and tags that other
tasks share; some members failed, some groups have one member, or none that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from agent_rl.credit import Advantages, Estimator, TurnValues, Values
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import FloatArray, Group, StopReason, Trajectory


class Member(NamedTuple):
    """An episode to be made."""

    turns: tuple[Played, ...]
    stop_reason: StopReason = StopReason.TERMINATED
    failed: bool = False


Plan: TypeAlias = Sequence[Sequence[Member]]
"""The members of each group of a batch."""

Law: TypeAlias = Callable[[Estimator, Plan], None]
"""Raises `AssertionError` when the estimator breaks it on this plan."""

Credit: TypeAlias = dict[tuple[int, int, int, int], float]
"""The advantage of each sampled token, by group, member, turn and place in the turn."""


def check_estimator(estimator: Estimator, *, waive: Collection[str] = (), plans: int = 50, seed: int = 0) -> None:
    """Raise `AssertionError` that names the law and the plan, when one of `LAWS` is broken that is not waived."""
    rng = np.random.default_rng(seed)
    for _ in range(plans):
        plan = random_plan(rng)
        for name, law in LAWS.items():
            if name not in waive:
                try:
                    law(estimator, plan)
                except AssertionError as error:
                    raise AssertionError(f"{estimator.name} breaks the law {name!r} ({error}) on {plan}") from error


def build(plan: Plan) -> list[Group]:
    """The groups of a plan."""
    return [
        make_group(*(_episode(member, number) for number, member in enumerate(members)), index=index)
        for index, members in enumerate(plan)
    ]


def made_up_values(group: Group) -> Values:
    """Values that depend on the turn and the token's place in it alone, wherever the token stands."""
    tokens = tuple(_values_of(trajectory) for trajectory in group.valid)
    return Values(tokens, np.array([0.3 * trajectory.member for trajectory in group.valid], np.float32))


def made_up_advantages(group: Group) -> TurnValues:
    """The same for whole turns, with a baseline."""
    return TurnValues(tuple(map(_advantages_of, group.valid)), made_up_values(group).tokens)


def credit_of(estimator: Estimator, groups: Sequence[Group]) -> Credit:
    """What the estimator gives each token."""
    return {
        (group.index, trajectory.member, turn.index, place): float(rows[turn.segment][turn.start + place])
        for group, advantages in zip(groups, _advantages(estimator, groups), strict=True)
        for trajectory, rows in zip(group.valid, advantages, strict=True)
        for turn in trajectory.turns
        for place in range(turn.end - turn.start)
    }


def random_plan(rng: np.random.Generator) -> Plan:
    """A plan with something of everything."""
    return [[_random_member(rng) for _ in range(rng.integers(1, 5))] for _ in range(rng.integers(1, 4))]


# --- laws -----------------------------------------------------------------------------------------------------------


def layout(estimator: Estimator, plan: Plan) -> None:
    """One finite float32 for each token of each valid member's segments, 0 where nothing was sampled."""
    groups = build(plan)
    for group, advantages in zip(groups, _advantages(estimator, groups), strict=True):
        assert len(advantages) == len(group.valid), "not one entry for each valid member"
        for trajectory, rows in zip(group.valid, advantages, strict=True):
            for segment, row in zip(trajectory.segments, rows, strict=True):
                assert row.dtype == np.float32, f"the type is {row.dtype}"
                assert row.shape == segment.token_ids_T.shape, "not one entry for each token"
                assert np.isfinite(row).all(), "not finite"
                assert not row[~segment.response_mask_T].any(), "credit for tokens that the environment wrote"


def order_of_siblings(estimator: Estimator, plan: Plan) -> None:
    """Who comes first in a group does not matter."""
    groups = build(plan)
    turned = [replace(group, trajectories=group.trajectories[::-1]) for group in groups]
    _assert_close(credit_of(estimator, turned), credit_of(estimator, groups))


def order_of_groups(estimator: Estimator, plan: Plan) -> None:
    """Which group comes first in a batch does not matter."""
    groups = build(plan)
    _assert_close(credit_of(estimator, groups[::-1]), credit_of(estimator, groups))


def forks(estimator: Estimator, plan: Plan) -> None:
    """An episode in several segments is the same episode: K rows do not count K times."""
    forked = [[_with_turns(m, [replace(t, fork=not t.fork, context=3) for t in m.turns]) for m in g] for g in plan]
    _assert_close(credit_of(estimator, build(forked)), credit_of(estimator, build(plan)))


def failures(estimator: Estimator, plan: Plan) -> None:
    """A member that failed is as if it had never been there."""
    crashed = Member((Played(1e3, sampled=2, state="a", tag="plan"),), failed=True)
    _assert_close(credit_of(estimator, build([[*g, crashed] for g in plan])), credit_of(estimator, build(plan)))


def alone(estimator: Estimator, plan: Plan) -> None:
    """A group is credited from itself: not from tasks in states of the same name, even with one valid member left."""
    others = [[_with_turns(m, [replace(t, reward=t.reward * 7 + 1) for t in m.turns]) for m in g] for g in plan]
    together = credit_of(estimator, build([*plan, *others]))
    for index, members in enumerate(plan):
        [group] = build([members])
        expected = credit_of(estimator, [replace(group, index=index)])
        _assert_close({place: value for place, value in together.items() if place[0] == index}, expected)


def equals(estimator: Estimator, plan: Plan) -> None:
    """Members that did and got the same earn exactly 0."""
    for members in plan:
        played = [replace(turn, state=index, tag=str(index)) for index, turn in enumerate(members[0].turns)]
        same = [Member(tuple(played), members[0].stop_reason)] * len(members)
        assert set(credit_of(estimator, build([same])).values()) <= {0.0}, "equal members are told apart"


def zero_rewards(estimator: Estimator, plan: Plan) -> None:
    """A reward of 0 is between one just below and one just above: where a turn ends does not hang on it."""
    rng = np.random.default_rng(0)
    noisy = [[_with_turns(m, [replace(t, reward=rng.normal()) for t in m.turns]) for m in g] for g in plan]

    def with_first(reward: float) -> Credit:
        first, *others = noisy[0]
        turns = [replace(turn, reward=reward) if k == 0 else turn for k, turn in enumerate(first.turns)]
        return credit_of(estimator, build([[_with_turns(first, turns), *others], *noisy[1:]]))

    below, above = with_first(-1e-7), with_first(1e-7)
    _assert_close(with_first(0.0), {place: (value + above[place]) / 2 for place, value in below.items()})


def internal_turns(estimator: Estimator, plan: Plan) -> None:
    """What the environment never saw moves no credit of what it saw. (One without tokens, so that no time passes.)"""
    unseen = Played(sampled=0, internal=True)
    padded = [[_with_turns(m, [*(x for t in m.turns for x in (unseen, t)), unseen]) for m in g] for g in plan]
    moved = credit_of(estimator, build(padded))
    unpadded = {(group, member, turn // 2, place): value for (group, member, turn, place), value in moved.items()}
    _assert_close(unpadded, credit_of(estimator, build(plan)))


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        layout,
        order_of_siblings,
        order_of_groups,
        forks,
        failures,
        alone,
        equals,
        zero_rewards,
        internal_turns,
    )
}


# --- making and comparing -------------------------------------------------------------------------------------------


def _advantages(estimator: Estimator, groups: Sequence[Group]) -> list[Advantages]:
    make_up = {None: None, "token": made_up_values, "utterance": made_up_advantages}[estimator.critic]
    values = [make_up(group) for group in groups] if make_up is not None else None
    return estimator(groups, values)


def _assert_close(actual: Credit, expected: Credit) -> None:
    assert actual.keys() == expected.keys(), "other tokens are credited"
    for place, value in expected.items():
        difference = abs(actual[place] - value)
        assert difference <= 1e-4 * max(1.0, abs(value)), f"{actual[place]} instead of {value} at {place}"


def _with_turns(member: Member, turns: Sequence[Played]) -> Member:
    return member._replace(turns=tuple(turns))


def _episode(member: Member, number: int) -> Trajectory:
    return make_trajectory(member.turns, member=number, stop_reason=member.stop_reason, failed=member.failed)


def _values_of(trajectory: Trajectory) -> tuple[FloatArray, ...]:
    rows = tuple(np.zeros(len(segment.token_ids_T), np.float32) for segment in trajectory.segments)
    for number, turn in enumerate(turn for turn in trajectory.turns if turn.end > turn.start):
        places = np.arange(turn.end - turn.start)
        rows[turn.segment][turn.start : turn.end] = np.sin(7 * number + places + trajectory.member)
    return rows


def _advantages_of(trajectory: Trajectory) -> FloatArray:
    spoken_K = np.array([turn.end > turn.start for turn in trajectory.turns], np.bool_)
    return (np.sin(7 * np.cumsum(spoken_K) + trajectory.member) * spoken_K).astype(np.float32)


def _random_member(rng: np.random.Generator) -> Member:
    turns = tuple(
        Played(
            reward=float(rng.choice([0.0, 0.0, 0.5, 1.0, -2.0])),
            sampled=int(rng.choice([0, 1, 1, 2, 4])),
            context=int(rng.integers(1, 4)),
            state=[None, "a", "b"][rng.integers(3)],
            tag=["", "plan", "act"][rng.integers(3)],
            fork=bool(rng.random() < 0.2),
        )
        for _ in range(rng.integers(0, 5))
    )
    stop = StopReason.TERMINATED if rng.random() < 0.7 else StopReason.MAX_TURNS
    return Member(turns, stop, failed=bool(rng.random() < 0.15))
