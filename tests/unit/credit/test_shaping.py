"""Shaping of rewards before credit, against numbers worked out on paper."""

import pytest

from agent_rl.credit import SHAPINGS, get_shaping
from agent_rl.errors import ConfigError, NotFoundError
from agent_rl.testing.episodes import Played, make_group, make_trajectory


def group_of(*episodes):
    return make_group(*(make_trajectory(turns, member=i) for i, turns in enumerate(episodes)))


def rewards(group):
    return [[turn.reward for turn in trajectory.turns] for trajectory in group.trajectories]


def shaped(name, group, **options):
    return rewards(get_shaping(name, options)(group))


SCORED = group_of([Played(0.75, process=0.75), Played(-1, process=-1), Played(1)])


def test_clipped_process_rewards_never_pay():
    assert shaped("clip_process", SCORED, at=0.5) == [pytest.approx([0.0, -1.5, 1.0])]  # the last turn has no score
    [terms] = [[turn.reward_terms for turn in t.turns] for t in get_shaping("clip_process")(SCORED).trajectories]
    assert terms == [{"process": 0.0}, {"process": -1.5}, {}]


def test_a_term_that_is_named_as_a_role_goes_to_its_last_turn():
    turns = [Played(tag="process"), Played(0.25, tag="process"), Played(1, tag="solver"), Played(1, process=0.5)]
    assert shaped("role_rewards", group_of(turns, [Played(1, process=0.5)])) == [[0, 0.75, 1, 1], [1]]


def test_process_differences_sum_up_to_the_first():
    group = group_of([Played(p, process=p) for p in (0.2, 0.9, 0.4)])
    assert shaped("delta_process", group) == [pytest.approx([-0.7, 0.5, 0.4])]


def test_differences_of_clipped_scores():
    group = group_of([Played(p, process=p) for p in (0.2, 0.9, 0.4)])
    assert shaped("delta_process", group, at=0.5) == [pytest.approx([-0.3, 0.1, -0.1])]


def test_the_outcome_is_not_shaped():
    group = group_of([Played(0.5, process=0.5), Played(3.0, process=1.0)])  # an outcome of 2 with the last score
    assert sum(shaped("clip_process", group)[0]) == pytest.approx(2.0)


def test_a_term_counts_by_its_weight():
    group = group_of([Played(0.1 * 0.25 + 2, process=0.25)])  # the reward is 0.1 of the score, and an outcome of 2
    assert shaped("clip_process", group, weight=0.1) == [pytest.approx([2 - 0.1 * 0.25])]


def test_an_unknown_term_is_refused():
    with pytest.raises(NotFoundError, match=r"reward term 'proces'\. Did you mean 'process'"):
        get_shaping("delta_process", {"term": "proces"})(SCORED)


def test_length_counts_once_all_are_correct():
    long, short = [Played(0.5, sampled=3), Played(0.5, sampled=1)], [Played(1, sampled=1)]
    assert shaped("concise", group_of(long, short), weight=0.4) == [[0.5, 0.5], [pytest.approx(1.3)]]
    failed = group_of(long, short, [Played(0, sampled=9)])
    assert shaped("concise", failed) == rewards(failed)


def test_none_leaves_groups_alone():
    assert get_shaping(None)(SCORED) is SCORED


@pytest.mark.parametrize("name", sorted(SHAPINGS))
def test_a_group_without_members(name):
    assert get_shaping(name)(make_group()).trajectories == ()


def test_mistakes_are_explained():
    with pytest.raises(NotFoundError, match="Did you mean 'concise'"):
        get_shaping("concisely")
    with pytest.raises(NotFoundError, match="option of the shaping concise 'wait'"):
        get_shaping("concise", {"wait": 1})
    with pytest.raises(ConfigError, match="set shaping to clip_process or"):
        get_shaping(None, {"at": 0.5})
