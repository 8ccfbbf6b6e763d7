import pytest
from pydantic import ValidationError

from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import FinishReason, StopReason

LIMITS = RolloutLimits(max_turns=3, max_response_tokens=10, max_context_tokens=100, max_tool_calls=2)


@pytest.mark.parametrize(
    ("turns", "context_tokens", "expected"),
    [
        (0, 0, None),
        (2, 99, None),
        (3, 0, StopReason.MAX_TURNS),
        (2, 100, StopReason.MAX_TOKENS),
        (2, 101, StopReason.MAX_TOKENS),
        (3, 100, StopReason.MAX_TURNS),  # both apply: turns are checked first
    ],
)
def test_before_an_action(turns, context_tokens, expected):
    assert LIMITS.before_action(turns, context_tokens) is expected


@pytest.mark.parametrize(
    ("finish_reason", "max_tokens", "tool_calls", "expected"),
    [
        (FinishReason.STOP, 10, 2, None),
        (FinishReason.STOP, 10, 3, StopReason.MAX_TOOL_CALLS),
        (FinishReason.LENGTH, 10, 0, StopReason.RESPONSE_LENGTH),
        (FinishReason.LENGTH, 9, 0, StopReason.MAX_TOKENS),  # the context, not the turn's own limit, cut it
        (FinishReason.LENGTH, 10, 3, StopReason.RESPONSE_LENGTH),  # both apply: the cut is checked first
    ],
)
def test_after_an_action(finish_reason, max_tokens, tool_calls, expected):
    assert LIMITS.after_action(finish_reason, max_tokens, tool_calls) is expected


def test_tool_calls_are_unlimited_by_default():
    assert RolloutLimits().after_action(FinishReason.STOP, 10, 10**6) is None


@pytest.mark.parametrize(("context_tokens", "expected"), [(0, 10), (90, 10), (91, 9), (99, 1)])
def test_a_response_may_fill_the_context_and_no_more(context_tokens, expected):
    assert LIMITS.response_tokens(context_tokens) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_turns": 0}, "max_turns"),
        ({"step_timeout_s": 0.0}, "step_timeout_s"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"max_response_tokens": 100, "max_context_tokens": 100}, "leaves no room for a prompt"),
        ({"generation_timeout_s": 20.0, "step_timeout_s": 5.0, "episode_timeout_s": 24.0}, "at least .* = 25"),
    ],
)
def test_limits_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        RolloutLimits(**fields)
