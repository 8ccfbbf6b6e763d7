"""ArCHer's advantages on tokens; the critic that they come from has tests of its own."""

import numpy as np
import pytest

from agent_rl.credit import TurnValues, get_estimator
from agent_rl.errors import ConfigError, NotFoundError
from agent_rl.testing.episodes import Played, make_group, make_trajectory


def group():
    turns = [Played(0.0, sampled=2), Played(0.0, sampled=0), Played(1.0, sampled=3, fork=True)]
    return make_group(
        make_trajectory(turns), make_trajectory([Played(0.25)], member=1), make_trajectory([], failed=True)
    )


ADVANTAGES = (np.array([0.5, 0.0, -0.25], np.float32), np.array([0.125], np.float32))


def test_every_token_of_a_turn_has_the_turns_advantage():
    [(first, second)] = get_estimator("archer")([group()], [TurnValues(ADVANTAGES)])
    assert [row.tolist() for row in first] == [[0, 0.5, 0.5, 0], [0, -0.25, -0.25, -0.25]]
    assert [row.tolist() for row in second] == [[0, 0.125]]
    assert all(row.dtype == np.float32 for row in (*first, *second))


def test_the_baseline_is_taken_off_token_by_token():
    baseline = ((np.array([0, 0.5, 0.25, 0], "f4"), np.array([0, 0, 1, -1], "f4")), (np.zeros(2, "f4"),))
    [(first, second)] = get_estimator("archer")([group()], [TurnValues(ADVANTAGES, baseline)])
    assert [row.tolist() for row in first] == [[0, 0, 0.25, 0], [0, -0.25, -1.25, 0.75]]
    assert second[0].tolist() == [0, 0.125]


def test_successes_may_be_imitated_too():
    [(first, second)] = get_estimator("archer", {"bc_weight": 1.0, "bc_at": 1.0})([group()], [TurnValues(ADVANTAGES)])
    assert [row.tolist() for row in first] == [[0, 1.5, 1.5, 0], [0, 0.75, 0.75, 0.75]]
    assert second[0].tolist() == [0, 0.125], "not a success"


def test_whitened_tokens_have_mean_0_and_deviation_1_before_successes_are_praised():
    options = {"whiten": True, "bc_weight": 10.0}
    [plain] = get_estimator("archer", {"whiten": True})([group()], [TurnValues(ADVANTAGES)])
    [praised] = get_estimator("archer", options)([group()], [TurnValues(ADVANTAGES)])
    tokens = np.array([0.5, 0.5, -0.25, -0.25, -0.25, 0.125])
    expected = (tokens - tokens.mean()) / tokens.std(ddof=1)
    for credited, bonus in ((plain, 0.0), (praised, 10.0)):
        found = np.concatenate([credited[0][0][1:3], credited[0][1][1:], credited[1][0][1:]])
        np.testing.assert_allclose(found, expected + np.array([bonus] * 5 + [0.0]), rtol=1e-6)


def test_only_better_turns_than_usual_may_be_imitated():
    [(first, second)] = get_estimator("archer", {"positive": True})([group()], [TurnValues(ADVANTAGES)])
    assert [row.tolist() for row in first] == [[0, 0.5, 0.5, 0], [0, 0, 0, 0]]
    assert second[0].tolist() == [0, 0.125]
    [whitened] = get_estimator("archer", {"positive": True, "whiten": True})([group()], [TurnValues(ADVANTAGES)])
    assert [bool(row.any()) for row in (*whitened[0], *whitened[1])] == [True, False, True], "0.125 is above the mean"


def test_whitening_finds_nothing_in_equal_advantages():
    [credited] = get_estimator("archer", {"whiten": True})(
        [group()], [TurnValues(tuple(a * 0 + 0.3 for a in ADVANTAGES))]
    )
    assert not any(row.any() for rows in credited for row in rows)


def test_it_asks_for_a_critic_of_turns():
    assert get_estimator("archer").critic == "utterance"
    assert get_estimator("turn_gae").critic == "token"
    assert get_estimator("grpo").critic is None
    with pytest.raises(NotFoundError, match="bc_weight"):
        get_estimator("archer", {"bc_weigth": 1.0})
    with pytest.raises(ConfigError):
        get_estimator("archer", {"bc_weight": "much"})
