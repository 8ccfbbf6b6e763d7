import pytest

from agent_rl.learner.schedule import lr_factor


def test_warm_up_rises_linearly_and_never_starts_at_zero():
    assert [lr_factor(step, "constant", 3, None) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_falls_to_zero():
    assert [lr_factor(step, "linear", 2, 6) for step in range(2, 8)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_cosine_is_half_way_down_in_the_middle():
    assert [lr_factor(step, "cosine", 0, 4) for step in (0, 2, 4, 9)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
