"""Blame, and messages that carry the fix."""

import pytest

from agent_rl.errors import (
    ConfigError,
    EnvironmentFailure,
    NotFoundError,
    RolloutFailure,
    SandboxFailure,
    ToolError,
    ToolFailure,
    UserError,
    boundary,
    did_you_mean,
    not_found,
)
from agent_rl.types import Owner


@pytest.mark.parametrize("failure", RolloutFailure.__subclasses__())
def test_every_failure_has_an_owner_of_its_own(failure: type[RolloutFailure]):
    record = failure("it broke", kind="timeout", stage="setup", retryable=False).record()
    assert record.owner is not Owner.FRAMEWORK
    assert (record.kind, record.stage, record.message, record.retryable) == ("timeout", "setup", "it broke", False)


def test_owners_are_distinct():
    owners = [failure.owner for failure in RolloutFailure.__subclasses__()]
    assert len(owners) == len(set(owners))


def test_the_boundary_attributes_foreign_exceptions_and_keeps_their_traceback():
    with pytest.raises(EnvironmentFailure) as caught, boundary(EnvironmentFailure, "reset"):
        raise KeyError("seed")
    record = caught.value.record()
    assert (record.kind, record.owner, record.stage) == ("crash", Owner.ENVIRONMENT, "reset")
    assert record.message == "reset: KeyError: 'seed'"
    assert 'raise KeyError("seed")' in record.traceback


def test_a_timeout_has_its_own_kind():
    with pytest.raises(ToolFailure) as caught, boundary(ToolFailure, "tool x"):
        raise TimeoutError
    assert (caught.value.kind, str(caught.value)) == ("timeout", "tool x timed out")


@pytest.mark.parametrize("error", [ToolError("model"), SandboxFailure("sandbox"), ConfigError("user")])
def test_the_boundary_lets_pass_what_already_has_an_owner(error: Exception):
    with pytest.raises(type(error)) as caught, boundary(EnvironmentFailure, "step"):
        raise error
    assert caught.value is error


def test_the_boundary_lets_cancellation_pass():
    with pytest.raises(KeyboardInterrupt), boundary(EnvironmentFailure, "step"):
        raise KeyboardInterrupt


def test_did_you_mean_names_the_nearest_or_nothing():
    assert did_you_mean("qery", ["query", "insert"]) == " Did you mean 'query'?"
    assert did_you_mean("zzz", ["query"]) == ""
    assert did_you_mean("query", []) == ""


def test_not_found_says_what_exists_and_what_to_do():
    error = not_found("environment", "sqll", ["web", "sql"], hint="Install it.")
    assert isinstance(error, NotFoundError)
    assert isinstance(error, UserError)
    assert str(error) == "Unknown environment 'sqll'. Did you mean 'sql'? Known: sql, web. Install it."
    assert str(not_found("tool", "x", [])) == "Unknown tool 'x'. Known: none."
