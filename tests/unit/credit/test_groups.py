import numpy as np
import pytest

from agent_rl.credit import get_estimator, has_signal
from agent_rl.errors import NotFoundError

MASK = [[0, 1, 1, 0, 1]]


def per_member(advantages):
    """The one advantage that each member's sampled tokens carry."""
    return [float(segments[0][1]) for segments in advantages]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # rewards 1, 0, 0, 3: mean 1, sample variance (0 + 1 + 1 + 4) / 3 = 2
        ("grpo", np.array([0, -1, -1, 2]) / np.sqrt(2)),
        ("dr_grpo", [0, -1, -1, 2]),
        ("rloo", [1 - 1, 0 - 4 / 3, 0 - 4 / 3, 3 - 1 / 3]),
    ],
)
def test_closed_form(make_group, name, expected):
    group = make_group(([1], MASK), ([0], MASK), ([0], MASK), ([1, 2], MASK))
    np.testing.assert_allclose(per_member(get_estimator(name)([group])[0]), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "opmd"])
def test_only_sampled_tokens_get_credit(make_group, name):
    group = make_group(([1], [[0, 1, 0], [0, 0, 1, 1]]), ([0], MASK))
    first, second = get_estimator(name)([group])[0]
    value = first[0][1]
    assert value > 0
    assert first[0].dtype == np.float32
    np.testing.assert_array_equal(first[0], np.float32([0, value, 0]))
    np.testing.assert_array_equal(first[1], np.float32([0, 0, value, value]))
    np.testing.assert_array_equal(second[0] != 0, np.array(MASK[0], bool))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "opmd"])
def test_failed_members_do_not_count(make_group, name):
    with_failure = make_group(([1], MASK), ([50], MASK, True), ([0], MASK))
    without = make_group(([1], MASK), ([0], MASK))
    assert per_member(get_estimator(name)([with_failure])[0]) == per_member(get_estimator(name)([without])[0])


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "opmd"])
@pytest.mark.parametrize(
    "rewards",
    [
        [[0.0], [0.0]],
        [[0.1]] * 7,
        [[0.1, 0.2], [0.3], [0.2, 0.1]],  # equal up to the rounding of the sum
        [[1.0]],
    ],
)
def test_no_signal_is_exactly_zero(make_group, name, rewards):
    group = make_group(*((turns, MASK) for turns in rewards))
    assert not has_signal(group)
    assert per_member(get_estimator(name)([group])[0]) == [0.0] * len(rewards)


def test_signal_in_small_rewards(make_group):
    assert has_signal(make_group(([1e-6], MASK), ([0], MASK)))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "opmd"])
def test_group_without_valid_members(make_group, name):
    group = make_group(([1], MASK, True), ([0], MASK, True))
    assert get_estimator(name)([group])[0] == ()
    assert not has_signal(group)


def test_unknown_estimator():
    with pytest.raises(NotFoundError, match=r"Unknown estimator 'gpro'\. Did you mean 'grpo'\?"):
        get_estimator("gpro")
