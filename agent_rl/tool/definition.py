"""The `Tool`: a function with a JSON schema and declared limits, made by `@tool` or from a schema of somebody else's.

Knows what may be declared. How the limits are kept is in `calls`.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, overload

import anyio
import anyio.lowlevel

from agent_rl.errors import ToolError, UserError, not_found
from agent_rl.tool.arguments import Arguments, Check, quoted, read_signature
from agent_rl.types import JSON

Effects: TypeAlias = Literal["pure", "read_only", "mutating"]
MAX_THREADS = 32  # running calls of one sync tool, unless it says otherwise


@dataclass(frozen=True, eq=False)  # no slots: a method is bound in every step, by copying one dictionary
class Tool:
    """A function with a JSON schema and declared limits. Made by `@tool`; as a class attribute it binds like a method.

    `timeout_s` is the deadline of one call. `max_output_chars` and, where given, `max_output_tokens` are how much of an
    output the model reads. `max_concurrency` limits running calls, `max_per_second` those that begin, both over all
    episodes of an event loop (`None`: no limit). `retries` are further attempts after an exception that is not a
    `ToolError`. `effects` is what calls do to the world: those of one message run concurrently unless one is mutating.
    `definition` is the OpenAI function dictionary that a chat template shows to the model. `origin` is equal for tools
    that do the same: all bound copies of a method have one.
    """

    name: str
    description: str
    parameters: JSON
    function: Callable[..., Any]
    timeout_s: float
    max_output_chars: int
    max_output_tokens: int | None
    max_concurrency: int | None
    max_per_second: float | None
    retries: int
    effects: Effects
    definition: JSON = field(repr=False)
    check: Check = field(repr=False)
    origin: Hashable = field(repr=False)
    running: anyio.lowlevel.RunVar[anyio.Semaphore] = field(repr=False)
    next_start: anyio.lowlevel.RunVar[float] = field(repr=False)
    is_async: bool = field(repr=False)
    is_method: bool = field(repr=False)
    is_unlimited: bool = field(repr=False)

    def __get__(self, instance: object | None, owner: type | None = None) -> Tool:
        if instance is None or not self.is_method:
            return self
        bound = object.__new__(Tool)
        vars(bound).update(vars(self), function=types.MethodType(self.function, instance), is_method=False)
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function: no checks, no deadline."""
        return self.function(*args, **kwargs)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    timeout_s: float = 30.0,
    max_output_chars: int = 16_000,
    max_output_tokens: int | None = None,
    max_concurrency: int | None = None,
    max_per_second: float | None = None,
    retries: int = 0,
    effects: Effects = "mutating",
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **limits: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a `Tool` of a function or method (async, or sync: then it runs in a worker thread).

    The name is the function's; parameters come from its type annotations, descriptions from its Google-style docstring
    (`Args:`). `effects` is `mutating` until declared otherwise, which is safe and runs calls one after another; only
    other tools can have `retries`. Raises `UserError` when the signature cannot be described to a model.
    """
    if function is None:
        return functools.partial(_tool, **limits)
    return _tool(function)


def _tool(function: Callable[..., Any], **limits: Any) -> Tool:
    description, parameters, check = read_signature(function)
    return _make(function.__name__, description, parameters, function, check, function, **limits)


def tool_from_schema(
    name: str,
    description: str,
    parameters: JSON,
    function: Callable[..., Any],
    *,
    check: Check | None = None,
    origin: Hashable = None,
    timeout_s: float = 30.0,
    max_output_chars: int = 16_000,
    max_output_tokens: int | None = None,
    max_concurrency: int | None = None,
    effects: Effects = "mutating",
) -> Tool:
    """A `Tool` whose JSON schema is somebody else's, such as one that runs elsewhere.

    `function` takes the arguments by keyword. `check` raises `ToolError` for bad ones; without it, any object passes.
    """
    return _make(
        name,
        description,
        parameters,
        function,
        check or functools.partial(_any_object, name),
        function if origin is None else origin,
        timeout_s=timeout_s,
        max_output_chars=max_output_chars,
        max_output_tokens=max_output_tokens,
        max_concurrency=max_concurrency,
        effects=effects,
    )


def _make(
    name: str,
    description: str,
    parameters: JSON,
    function: Callable[..., Any],
    check: Check,
    origin: Hashable,
    *,
    timeout_s: float = 30.0,
    max_output_chars: int = 16_000,
    max_output_tokens: int | None = None,
    max_concurrency: int | None = None,
    max_per_second: float | None = None,
    retries: int = 0,
    effects: Effects = "mutating",
) -> Tool:
    limits = (timeout_s, max_output_chars, max_output_tokens, max_concurrency, max_per_second)
    if any(limit is not None and limit <= 0 for limit in limits) or retries < 0:
        raise UserError(f"The limits of tool {name!r} must be positive.")
    if effects not in typing.get_args(Effects):
        raise not_found("kind of effects", effects, typing.get_args(Effects))
    if retries and effects == "mutating":
        raise UserError(
            f"Tool {name!r} cannot have retries: a mutating call that failed may have done its work. "
            "Declare effects='read_only' or 'pure', or leave out retries."
        )
    is_async = inspect.iscoroutinefunction(function)
    max_running = max_concurrency if is_async else max_concurrency or MAX_THREADS
    signature = {"name": name, "description": description, "parameters": parameters}
    return Tool(
        name=name,
        description=description,
        parameters=parameters,
        function=function,
        timeout_s=timeout_s,
        max_output_chars=max_output_chars,
        max_output_tokens=max_output_tokens,
        max_concurrency=max_running,
        max_per_second=max_per_second,
        retries=retries,
        effects=effects,
        definition={"type": "function", "function": signature},
        check=check,
        origin=origin,
        running=anyio.lowlevel.RunVar(f"running calls of {name}"),
        next_start=anyio.lowlevel.RunVar(f"earliest start of the next call of {name}"),
        is_async=is_async,
        is_method="self" in inspect.signature(function).parameters,
        is_unlimited=max_running is None and max_per_second is None and not retries,
    )


def _any_object(name: str, given: JSON) -> Arguments:
    if not isinstance(given, dict):  # what a model writes need not be an object
        raise ToolError(f"Bad arguments for {name}: expected an object, got {quoted(given)}", kind="bad_arguments")
    return given
