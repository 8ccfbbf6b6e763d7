import numpy as np
import pytest

from agent_rl.credit import get_estimator, row_groups, to_rows
from agent_rl.errors import NotFoundError


@pytest.fixture
def groups(make_group):
    return [
        make_group(([1], [[0, 1, 1, 0], [0, 1]]), ([0], [[0, 0, 1]])),
        make_group(([2], [[0, 1]], True), ([1], [[0, 1, 1, 1, 1]]), ([0], [[0, 0]]), index=1),
    ]


def rows_of(groups, aggregation):
    return to_rows(groups, get_estimator("dr_grpo")(groups), aggregation)


def test_token_mean_weighs_every_token_alike(groups):
    weights = [row.weights_T.tolist() for row in rows_of(groups, "token_mean")]
    w = np.float32(1 / 8)
    assert weights == [[0, w, w, 0], [0, w], [0, 0, w], [0, w, w, w, w]]


def test_sequence_mean_weighs_every_episode_alike(groups):
    weights = [row.weights_T.tolist() for row in rows_of(groups, "sequence_mean")]
    third, ninth, twelfth = np.float32([1 / 3, 1 / 9, 1 / 12])
    assert weights == [[0, ninth, ninth, 0], [0, ninth], [0, 0, third], [0, twelfth, twelfth, twelfth, twelfth]]


def test_prompt_mean_weighs_every_group_alike(groups):
    weights = [row.weights_T.tolist() for row in rows_of(groups, "prompt_mean")]
    eighth = np.float32(1 / 8)  # two groups with four trained tokens each
    assert weights == [[0, eighth, eighth, 0], [0, eighth], [0, 0, eighth], [0, eighth, eighth, eighth, eighth]]
    [first, *_, last] = rows_of([groups[0], groups[1], groups[1]], "prompt_mean")
    assert first.weights_T[1] == last.weights_T[1] == np.float32(1 / 12)


def test_rows_carry_their_segment_and_credit(groups):
    row = rows_of(groups, "token_mean")[3]
    segment = groups[1].trajectories[1].segments[0]
    assert row.token_ids_T is segment.token_ids_T
    assert row.rollout_logprobs_T is segment.rollout_logprobs_T
    assert row.weight_versions_T is segment.weight_versions_T
    np.testing.assert_array_equal(row.advantages_T, np.float32([0, 0.5, 0.5, 0.5, 0.5]))


def test_rows_are_numbered_by_their_group(groups):
    numbers = row_groups(groups)
    rows = rows_of(groups, "token_mean")
    own = [{id(segment.token_ids_T) for t in group.valid for segment in t.segments} for group in groups]
    assert len(numbers) == len(rows)
    assert len(set(numbers)) > 1
    assert all(id(row.token_ids_T) in own[number] for row, number in zip(rows, numbers, strict=True))


def test_the_first_token_of_a_row_is_never_trained(make_group):
    groups = [make_group(([1], [[1, 1]]), ([0], [[0, 1]]))]
    assert [row.weights_T.tolist() for row in rows_of(groups, "token_mean")] == [[0, 0.5], [0, 0.5]]


def test_nothing_to_train(make_group):
    assert rows_of([], "token_mean") == []
    assert rows_of([make_group(([1], [[0, 0]]))], "sequence_mean") == []


def test_unknown_aggregation(groups):
    with pytest.raises(NotFoundError, match="Did you mean 'token_mean'"):
        rows_of(groups, "token_men")
