"""Tools: typed functions that a model may call, and how the calls of one message are run.

Knows schemas, argument checking, deadlines and who is to blame. Knows nothing of chat templates, tokens or rewards.
"""

from __future__ import annotations

import abc
import functools
import inspect
import json
import time
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, cast, overload

import anyio
import anyio.lowlevel
import docstring_parser
from pydantic import Field, PydanticUserError, TypeAdapter, ValidationError, with_config
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails, to_json, to_jsonable_python
from typing_extensions import TypedDict

from agent_rl.concurrency import collect, in_thread
from agent_rl.environment import Environment
from agent_rl.errors import ToolError, ToolFailure, UserError, boundary, did_you_mean, not_found
from agent_rl.types import JSON, Message, Step, StepInfo, ToolCall, ToolResult

Effects: TypeAlias = Literal["pure", "read_only", "mutating"]
Arguments: TypeAlias = dict[str, Any]
MAX_THREADS = 32  # running calls of one sync tool, unless it says otherwise


@dataclass(frozen=True, eq=False)  # no slots: a method is bound in every step, by copying one dictionary
class Tool:
    """A function with a JSON schema and declared limits. Made by `@tool`; as a class attribute it binds like a method.

    `timeout_s` is the deadline of one call. `max_output_chars` is how much of an output the model reads.
    `max_concurrency` limits running calls over all episodes of an event loop (`None`: no limit). `effects` is what
    calls do to the world: those of one message run concurrently unless one is `mutating`.
    `definition` is the OpenAI function dictionary that a chat template shows to the model.
    """

    name: str
    description: str
    parameters: JSON
    function: Callable[..., Any]
    timeout_s: float
    max_output_chars: int
    max_concurrency: int | None
    effects: Effects
    definition: JSON = field(repr=False)
    arguments: TypeAdapter[Arguments] = field(repr=False)
    running: anyio.lowlevel.RunVar[anyio.Semaphore] = field(repr=False)
    is_async: bool = field(repr=False)
    is_method: bool = field(repr=False)

    def __get__(self, instance: object | None, owner: type | None = None) -> Tool:
        if instance is None or not self.is_method:
            return self
        bound = object.__new__(Tool)
        vars(bound).update(vars(self), function=types.MethodType(self.function, instance), is_method=False)
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function: no checks, no deadline."""
        return self.function(*args, **kwargs)


# --- from a function to a tool --------------------------------------------------------------------------------------


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    timeout_s: float = 30.0,
    max_output_chars: int = 16_000,
    max_concurrency: int | None = None,
    effects: Effects = "mutating",
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    timeout_s: float = 30.0,
    max_output_chars: int = 16_000,
    max_concurrency: int | None = None,
    effects: Effects = "mutating",
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a `Tool` of a function or method (async, or sync: then it runs in a worker thread).

    The name is the function's; parameters come from its type annotations, descriptions from its Google-style docstring
    (`Args:`). `effects` is `mutating` until declared otherwise, which is safe and runs calls one after another.
    Raises `UserError` when the signature cannot be described to a model.
    """
    if function is None:
        return functools.partial(
            tool,  # pyright: ignore[reportReturnType]  # the overloads hide the implementation's signature
            timeout_s=timeout_s,
            max_output_chars=max_output_chars,
            max_concurrency=max_concurrency,
            effects=effects,
        )
    if timeout_s <= 0 or max_output_chars < 1 or (max_concurrency is not None and max_concurrency < 1):
        raise UserError(f"The limits of tool {function.__name__!r} must be positive.")
    if effects not in typing.get_args(Effects):
        raise not_found("kind of effects", effects, typing.get_args(Effects))
    is_async = inspect.iscoroutinefunction(function)
    docstring = docstring_parser.parse(inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE)
    arguments = _argument_adapter(function, {p.arg_name: p.description or "" for p in docstring.params})
    name, description, parameters = (
        function.__name__,
        (docstring.description or "").strip(),
        _parameters(function, arguments),
    )
    signature = {"name": name, "description": description, "parameters": parameters}
    return Tool(
        name=name,
        description=description,
        parameters=parameters,
        function=function,
        timeout_s=timeout_s,
        max_output_chars=max_output_chars,
        max_concurrency=max_concurrency if is_async else max_concurrency or MAX_THREADS,
        effects=effects,
        definition={"type": "function", "function": signature},
        arguments=arguments,
        running=anyio.lowlevel.RunVar(f"running calls of {name}"),
        is_async=is_async,
        is_method="self" in inspect.signature(function).parameters,
    )


def _model_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that the model fills in."""
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UserError(
            f"The annotations of tool {function.__name__!r} must be importable at run time, at module level: {error}."
        ) from error


def _argument_adapter(function: Callable[..., Any], descriptions: Mapping[str, str]) -> TypeAdapter[Arguments]:
    """A validator from the model's arguments to keyword arguments; what has a default may be left out."""
    fields: dict[str, Any] = {}
    hints = _type_hints(function)
    for parameter in _model_parameters(function):
        where = f"Parameter {parameter.name!r} of tool {function.__name__!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UserError(f"{where} cannot be described to a model: use plain named parameters.")
        if parameter.name not in hints:
            raise UserError(f"{where} needs a type annotation.")
        hint, description = hints[parameter.name], " ".join(descriptions.get(parameter.name, "").split())
        if description:
            hint = Annotated[hint, Field(description=description)]
        fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    if unknown := set(descriptions) - set(fields):
        raise UserError(
            f"The docstring of tool {function.__name__!r} describes {sorted(unknown)}, not in its signature."
        )
    # TypedDict, unlike a model, has no attributes that a parameter called `json` or `schema` would shadow.
    typed_dict = cast(Any, TypedDict)("Arguments", fields)
    try:
        return TypeAdapter(with_config(extra="forbid")(typed_dict))
    except PydanticUserError as error:
        raise UserError(f"A parameter of tool {function.__name__!r} cannot be described: {error.message}") from error


class _PlainSchema(GenerateJsonSchema):
    """JSON schema without the titles that only repeat the names: the model pays for every token."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _parameters(function: Callable[..., Any], arguments: TypeAdapter[Arguments]) -> dict[str, Any]:
    schema = arguments.json_schema(schema_generator=_PlainSchema)
    del schema["title"]
    for parameter in _model_parameters(function):
        if parameter.default is not parameter.empty:
            schema["properties"][parameter.name]["default"] = to_jsonable_python(parameter.default)
    return schema


# --- running calls --------------------------------------------------------------------------------------------------


async def run_tool_calls(tools: Sequence[Tool], calls: Sequence[ToolCall]) -> tuple[ToolResult, ...]:
    """Run the calls of one message and return their results in call order.

    Calls run concurrently; if one of them is of a mutating tool, all run one after another, so that their order is the
    model's. Mistakes of the model (unparsable call, unknown tool, bad arguments, `ToolError`) and timeouts are results
    with an `error` and a text for the model to read. Any other exception of a tool raises `ToolFailure`.
    """
    by_name = {tool.name: tool for tool in tools}
    if len(calls) == 1:
        return (await _run(by_name, calls[0]),)
    if any(call.name in by_name and by_name[call.name].effects == "mutating" for call in calls):
        return tuple([await _run(by_name, call) for call in calls])
    try:
        return tuple(await collect([functools.partial(_run, by_name, call) for call in calls]))
    except ExceptionGroup as group:
        raise group.exceptions[0]  # noqa: B904  # `from` would hide the tool's own exception, its cause


async def _run(tools: Mapping[str, Tool], call: ToolCall) -> ToolResult:
    started = time.perf_counter()
    error, content = await _outcome(tools, call)
    return ToolResult(call, content, error, time.perf_counter() - started)


async def _outcome(tools: Mapping[str, Tool], call: ToolCall) -> tuple[str | None, str]:
    """The kind of the error, if any, and what the model reads."""
    if call.error is not None:
        return "parse_error", call.error
    tool = tools.get(call.name)
    if tool is None:
        known = ", ".join(tools) or "none"
        return "unknown_tool", f"There is no tool {call.name!r}.{did_you_mean(call.name, tools)} Tools: {known}."
    try:
        arguments = _validated(tool, call.arguments)
    except ValidationError as error:
        return "bad_arguments", f"Bad arguments for {tool.name}: {_explain(error, tool)}"
    try:
        with boundary(ToolFailure, f"tool {tool.name}"):
            return await _call(tool, arguments)
    except ToolError as error:
        return "tool_error", _shorten(str(error), tool.max_output_chars)


def _validated(tool: Tool, given: JSON) -> Arguments:
    """Raises `ValidationError`. Text, which is all that some formats have, is read as JSON where no text is wanted."""
    try:
        return tool.arguments.validate_python(given)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors(include_url=False) if problem["loc"]}
        texts = {name: text for name in wrong if isinstance(text := given.get(str(name)), str)}
        if not texts:
            raise
        try:
            return tool.arguments.validate_python({**given, **{name: json.loads(text) for name, text in texts.items()}})
        except (ValueError, RecursionError):  # a `ValidationError` is a `ValueError`
            raise error from None


async def _call(tool: Tool, arguments: Arguments) -> tuple[str | None, str]:
    if tool.max_concurrency is None:
        return await _call_now(tool, arguments)
    async with _semaphore(tool, tool.max_concurrency):
        return await _call_now(tool, arguments)


def _semaphore(tool: Tool, limit: int) -> anyio.Semaphore:
    """The semaphore that all bound copies of the tool share in this event loop."""
    semaphore = tool.running.get(None)
    if semaphore is None:
        semaphore = anyio.Semaphore(limit)
        tool.running.set(semaphore)
    return semaphore


async def _call_now(tool: Tool, arguments: Arguments) -> tuple[str | None, str]:
    """Run the function under its deadline, which starts with the call and not with the wait for its turn."""
    with anyio.move_on_after(tool.timeout_s):
        if tool.is_async:
            output = await tool.function(**arguments)
        else:
            output = await in_thread(functools.partial(tool.function, **arguments))
        text = output if isinstance(output, str) else to_json(output).decode()
        return None, _shorten(text, tool.max_output_chars)
    return "timeout", f"{tool.name} was stopped: it took longer than {tool.timeout_s:g} s."


def _shorten(text: str, limit: int) -> str:
    """Keep `limit` characters, from both ends."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    head, cut = limit - tail, len(text) - limit
    return f"{text[:head]}\n[... {cut} characters cut ...]\n{text[len(text) - tail :]}"


def _explain(error: ValidationError, tool: Tool) -> str:
    """One line that tells the model which arguments to change."""
    return "; ".join(_explain_one(problem, tool) for problem in error.errors(include_url=False))


def _explain_one(problem: ErrorDetails, tool: Tool) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown argument {name!r}.{did_you_mean(name, tool.parameters['properties'])}"
    if problem["type"] == "missing":
        return f"missing argument {name!r}"
    got = _shorten(repr(problem["input"]), 80).replace("\n", " ")
    return f"argument {name!r}: {problem['msg']}, got {got}" if name else f"{problem['msg']}, got {got}"


# --- environments with tools ----------------------------------------------------------------------------------------


class ToolEnvironment(Environment):
    """An environment that offers tools: every `@tool` method of its class, unless `tools` is overridden.

    A message with tool calls gets their results; a message without is the model's answer and goes to `answer`.
    """

    _tool_names: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        attributes = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
        offered = {name: value for name, value in attributes.items() if isinstance(value, Tool)}
        if len({tool.name for tool in offered.values()}) < len(offered):
            raise UserError(f"{cls.__name__} offers two tools of one name: {[tool.name for tool in offered.values()]}.")
        cls._tool_names = tuple(offered)

    @property
    def tools(self) -> Sequence[Tool]:
        """The `@tool` methods in order of definition, bound to this episode."""
        return tuple([getattr(self, name) for name in self._tool_names])

    async def step(self, action: Message) -> Step:
        """Run the tool calls of the message, or pass it to `answer`."""
        if not action.tool_calls:
            return await self.answer(action)
        results = await run_tool_calls(self.tools, action.tool_calls)
        messages = tuple([Message("tool", result.content, tool_call_id=result.call.id) for result in results])
        return Step(messages, info=StepInfo(tool_results=results))

    @abc.abstractmethod
    async def answer(self, action: Message) -> Step:
        """Judge a message without tool calls (usually the end of the episode)."""
