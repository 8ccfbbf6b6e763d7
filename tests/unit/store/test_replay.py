"""Replay: which groups are drawn, how evenly, and that a resumed run draws the same."""

from dataclasses import replace

import numpy as np
import pytest

from agent_rl.store.opening import create_journal, open_journal
from agent_rl.store.replay import Replay


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def journal(path):
    with create_journal(path) as journal:
        yield journal


def fill(journal, make_group, steps, per_step=2):
    """Steps 1, 2, ... consume groups 0, 1, ...; the next group was finished ahead, but not consumed."""
    for index in range(steps * per_step + 1):
        journal.append_group(make_group(index, members=2))
    for step in range(steps):
        journal.mark_consumed(step + 1, range(step * per_step, (step + 1) * per_step))


def indices(replay, present, step, count=1, size=2):
    return [[group.index for group in draw] for draw in replay.draws(present, step, count, size)]


def test_the_window_is_what_was_consumed_last_and_the_present(journal, make_group):
    fill(journal, make_group, steps=4)
    present = [make_group(8), make_group(9)]
    everything = indices(Replay(journal, 5, seed=0), present, step=4, size=100)
    assert [sorted(draw) for draw in everything] == [[5, 6, 7, 8, 9]], "three from before, and never one from ahead"
    assert sorted(indices(Replay(journal, 100, seed=0), present, step=4, size=100)[0]) == list(range(10))
    assert sorted(indices(Replay(journal, 1, seed=0), present, step=4, size=100)[0]) == [8, 9]


def test_groups_come_back_whole(journal, make_group):
    fill(journal, make_group, steps=1)
    drawn = next(Replay(journal, 10, seed=0).draws([], 1, 1, 2))
    for group in drawn:
        for old, new in zip(make_group(group.index, members=2).trajectories, group.trajectories, strict=True):
            assert [t.reward for t in old.turns] == [t.reward for t in new.turns]
            for one, other in zip(old.segments, new.segments, strict=True):
                np.testing.assert_array_equal(one.token_ids_T, other.token_ids_T)
                np.testing.assert_array_equal(one.rollout_logprobs_T, other.rollout_logprobs_T)


def test_what_is_replayed_is_transformed_like_the_present(journal, make_group):
    fill(journal, make_group, steps=1)
    renamed = Replay(journal, 10, 0, lambda group: replace(group, index=-1 - group.index))
    present = [make_group(50)]
    assert sorted(indices(renamed, present, 1, size=9)[0]) == [-2, -1, 50], "the present came transformed already"


def test_draws_are_even_without_repetition(journal, make_group):
    fill(journal, make_group, steps=5)
    draws = indices(Replay(journal, 100, seed=3), [], step=5, count=400, size=3)
    assert all(len(set(draw)) == 3 for draw in draws)
    counts = np.bincount(np.concatenate(draws), minlength=10)
    assert len(counts) == 10
    expected = 400 * 3 / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9, "chi-squared, 9 degrees of freedom, p = 0.001"


def test_a_resumed_run_draws_the_same(path, journal, make_group):
    fill(journal, make_group, steps=3)
    present = [make_group(6)]
    before = indices(Replay(journal, 5, seed=1), present, step=3, count=4)
    journal.append_group(make_group(7))  # another step, which is lost
    journal.mark_consumed(4, [6, 7])
    assert indices(Replay(journal, 5, seed=1), present, step=3, count=4) != before
    journal.rewind(3)
    with open_journal(path) as reopened:
        assert indices(Replay(reopened, 5, seed=1), present, step=3, count=4) == before
    assert indices(Replay(journal, 5, seed=1), present, step=2, count=4) != before
    assert indices(Replay(journal, 5, seed=2), present, step=3, count=4) != before


def test_another_thread_may_write_meanwhile(path, journal, make_group):
    fill(journal, make_group, steps=1)
    with open_journal(path) as own:
        draws = Replay(own, 10, seed=0).draws([], 1, 3, 2)
        for step, _ in enumerate(draws, start=5):
            journal.append_group(make_group(step))
        assert 6 in journal.load_groups()
