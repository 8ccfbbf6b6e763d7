"""The exception tree, and the boundary that turns what escapes from foreign code into an owned failure.

    AgentRLError
     +-- UserError             bad input; the command line prints one sentence and exits with 2
     |    +-- ConfigError      unknown, missing or contradictory configuration
     |    +-- NotFoundError    unknown environment, tool, recipe, parser (says what exists)
     |    +-- ModelError       a model folder or tokenizer that cannot be used
     +-- ToolError             the model's mistake: the text goes back to the model, the episode goes on
     +-- RolloutFailure        the episode cannot count; becomes a `Failure` record
          +-- ToolFailure, EnvironmentFailure, SandboxFailure, ProviderFailure, GraderFailure

Anything else that escapes from our own code is a bug in the framework: it stops the run with its traceback.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from types import TracebackType

from agent_rl.types import Failure, Owner


class AgentRLError(Exception):
    """Base of every error that this framework raises on purpose."""


class UserError(AgentRLError):
    """Bad input. The message is one sentence that carries the fix."""


class ConfigError(UserError):
    """Unknown, missing or contradictory configuration."""


class NotFoundError(UserError):
    """A name that is not registered. Build it with `not_found` so that the message says what exists."""


class ModelError(UserError):
    """A model folder, hub id or tokenizer that cannot be used."""


class ToolError(AgentRLError):
    """Raise inside a tool to tell the model what it did wrong. `kind` becomes the result's `error`."""

    def __init__(self, message: str = "", *, kind: str = "tool_error") -> None:
        super().__init__(message)
        self.kind = kind


class RolloutFailure(AgentRLError):
    """An episode that cannot count. `kind` is a short word (`timeout`, `crash`); `retryable` allows another attempt."""

    owner: Owner = Owner.FRAMEWORK

    def __init__(self, message: str, *, kind: str = "crash", stage: str = "", retryable: bool = True) -> None:
        super().__init__(message)
        self.kind = kind
        self.stage = stage
        self.retryable = retryable

    def record(self) -> Failure:
        """The failure as data, with the traceback of its cause."""
        cause = self.__cause__ or self
        text = "".join(traceback.format_exception(cause))
        return Failure(self.kind, self.owner, self.stage, str(self), text, self.retryable)


class ToolFailure(RolloutFailure):
    """A tool raised something else than `ToolError`."""

    owner = Owner.TOOL


class EnvironmentFailure(RolloutFailure):
    """The environment's own code failed or hung."""

    owner = Owner.ENVIRONMENT


class SandboxFailure(RolloutFailure):
    """A sandbox could not be had, died or broke its contract."""

    owner = Owner.SANDBOX


class ProviderFailure(RolloutFailure):
    """The inference server failed (HTTP error, lost connection, refused request)."""

    owner = Owner.PROVIDER


class GraderFailure(RolloutFailure):
    """The scorer failed, so that the reward is unknown."""

    owner = Owner.GRADER


class boundary:  # noqa: N801  # used as a function; a class, since a generator costs three times as much per turn
    """Attribute whatever escapes from foreign code to its owner: `with boundary(ToolFailure, "tool search"):`.

    `RolloutFailure` and `ToolError` pass unchanged (the inner code knew better), so do cancellation and `UserError`.
    `TimeoutError` becomes kind `timeout`; every other exception becomes kind `crash`, with the original as its cause.
    """

    __slots__ = ("_failure", "_stage")

    def __init__(self, failure: type[RolloutFailure], stage: str) -> None:
        self._failure = failure
        self._stage = stage

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not isinstance(error, Exception) or isinstance(error, AgentRLError):
            return
        if isinstance(error, TimeoutError):
            raise self._failure(f"{self._stage} timed out", kind="timeout", stage=self._stage) from error
        raise self._failure(f"{self._stage}: {type(error).__name__}: {error}", stage=self._stage) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known name, or an empty string."""
    names = list(known)
    longer = [other for other in names if name and other.startswith(name)]
    near = longer if len(longer) == 1 else difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def not_found(what: str, name: str, known: Iterable[str], hint: str = "") -> NotFoundError:
    """`NotFoundError` that says what was asked, the nearest name and what exists."""
    names = sorted(known)
    listed = ", ".join(names) if names else "none"
    return NotFoundError(f"Unknown {what} {name!r}.{did_you_mean(name, names)} Known: {listed}.{hint and ' ' + hint}")
