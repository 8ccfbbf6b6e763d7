"""What a model may pass to a tool: the JSON schema of a signature, and the check of what it did pass.

Knows types, docstrings and how to explain a mistake so that a model can correct it. Knows nothing of running tools.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, NotRequired, TypeAlias, cast

import docstring_parser
from pydantic import Field, PydanticUserError, TypeAdapter, ValidationError, with_config
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails, to_jsonable_python
from typing_extensions import TypedDict

from agent_rl.errors import ToolError, UserError, did_you_mean
from agent_rl.types import JSON

Arguments: TypeAlias = dict[str, Any]
Check: TypeAlias = Callable[[JSON], Arguments]
"""From what the model passed to keyword arguments. Raises `ToolError` of kind `bad_arguments`."""

_MOST_QUOTED = 80  # characters of a bad argument that an explanation repeats


class Signature(NamedTuple):
    """How a function looks to a model, and the check of its arguments."""

    description: str
    parameters: JSON
    check: Check


def read_signature(function: Callable[..., Any]) -> Signature:
    """Types from the annotations, descriptions from the Google-style docstring.

    Raises `UserError` when the signature cannot be described to a model.
    """
    docstring = docstring_parser.parse(inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE)
    adapter = _adapter(function, {p.arg_name: p.description or "" for p in docstring.params})
    parameters = _schema(function, adapter)

    def check(given: JSON) -> Arguments:
        try:
            return adapter.validate_python(given)
        except ValidationError as error:
            return _second_reading(function.__name__, parameters, adapter, given, error)

    return Signature((docstring.description or "").strip(), parameters, check)


def bad_arguments(tool_name: str, problems: Iterable[str]) -> ToolError:
    """One line that tells the model which arguments to change."""
    return ToolError(f"Bad arguments for {tool_name}: {'; '.join(problems)}", kind="bad_arguments")


def read_texts(given: JSON, wrong: Iterable[object]) -> Arguments | None:
    """`given` with the texts among its `wrong` arguments read as JSON; `None` when that cannot be.

    Some formats of tool calls have no types: there every argument is text, also where none is wanted.
    """
    texts = {name: text for name in map(str, wrong) if isinstance(text := given.get(name), str)}
    try:
        return {**given, **{name: json.loads(text) for name, text in texts.items()}} if texts else None
    except (ValueError, RecursionError):
        return None


def quoted(value: object) -> str:
    """The beginning and the end of a bad value, on one line."""
    text = repr(value)
    if len(text) > _MOST_QUOTED:
        half, cut = _MOST_QUOTED // 2, len(text) - _MOST_QUOTED
        text = f"{text[:half]} [... {cut} characters cut ...] {text[-half:]}"
    return text.replace("\n", " ")


# --- the schema -----------------------------------------------------------------------------------------------------


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


def _adapter(function: Callable[..., Any], descriptions: Mapping[str, str]) -> TypeAdapter[Arguments]:
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


def _schema(function: Callable[..., Any], adapter: TypeAdapter[Arguments]) -> Arguments:
    schema = adapter.json_schema(schema_generator=_PlainSchema)
    del schema["title"]
    for parameter in _model_parameters(function):
        if parameter.default is not parameter.empty:
            schema["properties"][parameter.name]["default"] = to_jsonable_python(parameter.default)
    return schema


# --- what the model did wrong ---------------------------------------------------------------------------------------


def _second_reading(
    name: str, parameters: JSON, adapter: TypeAdapter[Arguments], given: JSON, error: ValidationError
) -> Arguments:
    """The arguments, with text read as JSON where no text is wanted, or the explanation of what is wrong."""
    problems = error.errors(include_url=False)
    read = read_texts(given, (problem["loc"][0] for problem in problems if problem["loc"]))
    if read is not None:
        try:
            return adapter.validate_python(read)
        except ValidationError:
            pass  # what is explained is what the model wrote
    raise bad_arguments(name, [_explain(problem, parameters) for problem in problems]) from None


def _explain(problem: ErrorDetails, parameters: JSON) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown argument {name!r}.{did_you_mean(name, parameters['properties'])}"
    if problem["type"] == "missing":
        return f"missing argument {name!r}"
    got = quoted(problem["input"])
    return f"argument {name!r}: {problem['msg']}, got {got}" if name else f"{problem['msg']}, got {got}"
