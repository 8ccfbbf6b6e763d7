"""Every estimator against the equations of its paper, worked out slowly in plain Python, one trajectory at a time.

Episodes are made up by the conformance kit: rewards of 0, turns without tokens, internal turns, shared states, forks,
failed members, cut episodes. Nothing here uses the library's own arithmetic.
"""

import math
import random
import statistics
from dataclasses import replace

import numpy as np
import pytest

from agent_rl.credit import CRITIC_ESTIMATORS, EPISODE_ESTIMATORS, STEP_ESTIMATORS, get_estimator
from agent_rl.testing.credit_check import build, credit_of, made_up_values, random_plan


def standard(value, values):
    return (value - statistics.mean(values)) / statistics.stdev(values) if len(set(values)) > 1 else 0.0


def mean_free(value, values):
    return value - statistics.mean(values)


def reward(trajectory):
    return math.fsum(turn.reward for turn in trajectory.turns)


def steps_of(trajectory):
    """Each step's turns: an external one and the internal ones before it; trailing ones belong to the last."""
    steps, waiting = [], []
    for turn in trajectory.turns:
        waiting.append(turn)
        if not turn.internal:
            steps.append(waiting)
            waiting = []
    if steps:
        steps[-1] += waiting
    return steps


def step_rewards(trajectory):
    return [math.fsum(turn.reward for turn in step) for step in steps_of(trajectory)]


def returns(rewards, gamma):
    return [math.fsum(gamma ** (m - k) * rewards[m] for m in range(k, len(rewards))) for k in range(len(rewards))]


def acting(step):
    return next(turn for turn in step if not turn.internal)


# --- one number for an episode --------------------------------------------------------------------------------------


def of_group(formula):
    """A formula of one reward and all of its group (or, with a second argument, of the batch)."""

    def credit(groups):
        batch = [[reward(t) for t in group.valid] for group in groups]
        return {
            (group.index, t.member): formula(rewards[i], rewards, batch)
            for group, rewards in zip(groups, batch, strict=True)
            for i, t in enumerate(group.valid)
        }

    return credit


def others(r, rewards):
    rest = list(rewards)
    rest.remove(r)
    return r - statistics.mean(rest) if rest else 0.0


def soft(rewards):
    return math.log(statistics.mean(math.exp(r) for r in rewards))


def flat(batch):
    return [r for rewards in batch for r in rewards]


def of_batch_baseline(r, rewards, batch):
    every = [mean_free(other, group) for group in batch for other in group]
    return mean_free(r, rewards) / statistics.stdev(every) if max(every) - min(every) > 1e-9 else 0.0


def lite(r, rewards, batch):
    return mean_free(r, rewards) / statistics.stdev(flat(batch)) if len(set(rewards)) > 1 else 0.0


def oreal(groups):
    """The sum over the tokens of successes by their number, and half of that over failures, times all tokens."""
    length = {id(t): sum(turn.end - turn.start for turn in t.turns) for group in groups for t in group.valid}
    won = {id(t): reward(t) > 0.5 for group in groups for t in group.valid}
    total = {kind: sum(n for t, n in length.items() if won[t] is kind) for kind in (True, False)}
    credit = {}
    for group in groups:
        rewards = [reward(t) for t in group.valid]
        for t in group.valid:
            share = (1.0 if won[id(t)] else 0.5) / max(1, total[won[id(t)]])
            credit[group.index, t.member] = share * sum(total.values()) * others(reward(t), rewards)
    return credit


EPISODES = {
    "grpo": of_group(lambda r, rewards, batch: standard(r, rewards)),
    "dr_grpo": of_group(lambda r, rewards, batch: mean_free(r, rewards)),
    "rloo": of_group(lambda r, rewards, batch: others(r, rewards)),
    "pairwise": of_group(
        lambda r, rewards, batch: (sum(r > o for o in rewards) - sum(r < o for o in rewards)) / max(1, len(rewards) - 1)
    ),
    "opmd": of_group(lambda r, rewards, batch: r - soft(rewards) if len(set(rewards)) > 1 else 0.0),
    "asymre": of_group(lambda r, rewards, batch: mean_free(r, rewards) + 0.1),
    "w_reinforce": of_group(lambda r, rewards, batch: 0.1 if r > 0.5 else -1.0),
    "reinforce_pp": of_group(lambda r, rewards, batch: standard(r, flat(batch))),
    "reinforce_pp_baseline": of_group(of_batch_baseline),
    "lite_ppo": of_group(lite),
    "oreal": oreal,
}


# --- one number for a step ------------------------------------------------------------------------------------------


def return_to_go(group):
    rows = [returns(step_rewards(t), 1.0) for t in group.valid]
    for i, row in enumerate(rows):
        siblings = [other for j, other in enumerate(rows) if j != i]
        reached = [[other[k] for other in siblings if len(other) > k] for k in range(len(row))]
        yield [g - statistics.mean(there) if there else 0.0 for g, there in zip(row, reached, strict=True)]


def mt_grpo(group):
    rows = [step_rewards(t) for t in group.valid]
    outcomes = [row[-1] if row else 0.0 for row in rows]
    for row, outcome in zip(rows, outcomes, strict=True):
        credit = [standard(outcome, outcomes)] * len(row)
        for k in range(len(row) - 1):
            credit[k] += standard(row[k], [other[k] for other in rows if len(other) > k + 1])
        yield credit


def gigpo(group):
    rows = [returns(step_rewards(t), 0.95) for t in group.valid]
    states = [[acting(step).state_key for step in steps_of(t)] for t in group.valid]
    totals = [reward(t) for t in group.valid]
    for row, keys, total in zip(rows, states, totals, strict=True):
        anchors = [
            [g for r, k in zip(rows, states, strict=True) for g, s in zip(r, k, strict=True) if s == key]
            for key in keys
        ]
        yield [
            standard(total, totals) + (standard(g, anchor) if key is not None else 0.0)
            for g, key, anchor in zip(row, keys, anchors, strict=True)
        ]


def rlvmr(group):
    rows = [step_rewards(t) for t in group.valid]
    outcomes = [row[-1] if row else 0.0 for row in rows]
    process = [[*row[:-1], 0.0][: len(row)] for row in rows]
    tags = [[acting(step).tag for step in steps_of(t)] for t in group.valid]
    for row, names, outcome in zip(process, tags, outcomes, strict=True):
        credit = []
        for p, name in zip(row, names, strict=True):
            alike = [q for r, n in zip(process, tags, strict=True) for q, m in zip(r, n, strict=True) if m == name]
            credit.append(0.5 * standard(outcome, outcomes) + 0.5 * (standard(p, alike) if name else 0.0))
        yield credit


def roles(group):
    totals = []
    for t in group.valid:
        totals.append({})
        for step, r in zip(steps_of(t), step_rewards(t), strict=True):
            totals[-1][acting(step).tag] = totals[-1].get(acting(step).tag, 0.0) + r
    for t, mine in zip(group.valid, totals, strict=True):
        names = [acting(step).tag for step in steps_of(t)]
        yield [standard(mine[name], [other[name] for other in totals if name in other]) for name in names]


STEPS = {"return_to_go": return_to_go, "mt_grpo": mt_grpo, "gigpo": gigpo, "rlvmr": rlvmr, "roles": roles}


# --- one number for a token -----------------------------------------------------------------------------------------


def turns_of(trajectory, values):
    """(turn, reward, values of its tokens) of the turns with tokens; rewards without tokens go to the one before."""
    turns = []
    for turn in trajectory.turns:
        if turn.end > turn.start:
            turns.append([turn, turn.reward, [float(v) for v in values[turn.segment][turn.start : turn.end]]])
        elif turns:
            turns[-1][1] += turn.reward
    return turns


def gae(rewards, values, after, gamma, lam):
    """The sum of (gamma lam)^l delta_{t+l}, term by term."""
    following = [*values[1:], after]
    deltas = [r + gamma * v - w for r, v, w in zip(rewards, following, values, strict=True)]
    return returns(deltas, gamma * lam)


def token_gae(turns, after):
    rewards = [r if i == len(values) - 1 else 0.0 for _, r, values in turns for i in range(len(values))]
    flat_values = [v for *_, values in turns for v in values]
    return gae(rewards, flat_values, after, 0.9, 0.8)


def turn_gae(turns, after):
    per_turn = gae([r for _, r, _ in turns], [values[0] for *_, values in turns], after, 0.9, 0.8)
    return [a for a, (*_, values) in zip(per_turn, turns, strict=True) for _ in values]


def bi_level_gae(turns, after):
    high = gae([r for _, r, _ in turns], [values[-1] for *_, values in turns], after, 0.95, 0.7)
    credit = []
    for advantage, (*_, values) in zip(high, turns, strict=True):
        backwards = [advantage]
        for t in range(len(values) - 2, -1, -1):
            backwards.append(0.9 * values[t + 1] - values[t] + 0.9 * 0.8 * backwards[-1])
        credit += backwards[::-1]
    return credit


TOKENS = {
    "token_gae": (token_gae, {"gamma": 0.9, "lam": 0.8}),
    "turn_gae": (turn_gae, {"gamma": 0.9, "lam": 0.8}),
    "bi_level_gae": (
        bi_level_gae,
        {"turn_gamma": 0.95, "turn_lam": 0.7, "token_gamma": 0.9, "token_lam": 0.8},
    ),
}


# --- comparisons ----------------------------------------------------------------------------------------------------


def batches():
    rng = np.random.default_rng(7)
    for number in range(12):
        inside = random.Random(number)
        plan = [
            [
                m._replace(turns=tuple(replace(t, internal=inside.random() < 0.3, reward=t.reward) for t in m.turns))
                for m in group
            ]
            for group in random_plan(rng)
        ]
        quiet = [  # internal turns earn nothing
            [m._replace(turns=tuple(replace(t, reward=t.reward * (not t.internal)) for t in m.turns)) for m in group]
            for group in plan
        ]
        yield build(quiet)


BATCHES = list(batches())


def assert_same(actual, expected):
    assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_batches_have_something_of_everything():
    turns = [t for groups in BATCHES for g in groups for e in g.valid for t in e.turns]
    assert any(t.internal for t in turns)
    assert any(t.end == t.start for t in turns)
    assert any(t.reward == 0 and not t.internal for t in turns)
    assert any(not e.turns for groups in BATCHES for g in groups for e in g.valid)
    assert any(e.interrupted for groups in BATCHES for g in groups for e in g.valid)


@pytest.mark.parametrize("name", sorted(EPISODE_ESTIMATORS))
def test_of_an_episode(name):
    for groups in BATCHES:
        expected = EPISODES[name](groups)
        actual = credit_of(get_estimator(name), groups)
        assert_same(actual, {place: expected[place[:2]] for place in actual})


@pytest.mark.parametrize("name", sorted(STEP_ESTIMATORS))
def test_of_a_step(name):
    for groups in BATCHES:
        expected = {}
        for group in groups:
            for t, credit in zip(group.valid, STEPS[name](group), strict=True):
                for step, advantage in zip(steps_of(t), credit, strict=True):
                    expected |= {(group.index, t.member, turn.index): advantage for turn in step}
        actual = credit_of(get_estimator(name), groups)
        assert_same(actual, {place: expected.get(place[:3], 0.0) for place in actual})


@pytest.mark.parametrize("name", sorted(CRITIC_ESTIMATORS))
def test_of_a_token(name):
    formula, options = TOKENS[name]
    for groups in BATCHES:
        expected = {}
        for group in groups:
            values = made_up_values(group)
            for t, of_member, final in zip(group.valid, values.tokens, values.final_G, strict=True):
                turns = turns_of(t, of_member)
                places = [(group.index, t.member, turn.index, i) for turn, _, v in turns for i in range(len(v))]
                credit = formula(turns, float(final) if t.interrupted else 0.0) if turns else []
                expected |= dict(zip(places, credit, strict=True))
        assert_same(credit_of(get_estimator(name, {**options, "whiten": False}), groups), expected)
        if len(expected) > 1:
            every = list(expected.values())
            whitened = credit_of(get_estimator(name, options), groups)
            assert_same(whitened, {place: standard(value, every) for place, value in expected.items()})
