"""Types of parameters that a model can be told about, each with the arguments that it may pass."""

import enum
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, Optional

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agent_rl.tool import run_tool_calls, tool
from agent_rl.types import ToolCall

pytestmark = pytest.mark.anyio


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    """A place."""

    x: int
    label: str = "here"
    tags: list[str] = field(default_factory=list)


@dataclass
class Line:
    start: Point
    end: Point | None = None


class Filter(BaseModel):
    column: str = Field(description="Which column.")
    values: list[int] = []


class Options(TypedDict):
    depth: int
    note: NotRequired[str]


async def received(annotation: Any, value: object) -> tuple[dict[str, Any], str | None, object]:
    """The schema of one parameter, and what a tool gets for a value."""
    got: list[object] = []

    async def take(value: Any) -> str:
        got.append(value)
        return ""

    take.__annotations__["value"] = annotation
    made = tool(take)
    (result,) = await run_tool_calls([made], [ToolCall("1", "take", {"value": value})])
    definitions = {"$defs": made.parameters["$defs"]} if "$defs" in made.parameters else {}
    return made.parameters["properties"]["value"] | definitions, result.error, got[0] if got else result.content


@pytest.mark.parametrize(
    ("annotation", "schema", "value", "got"),
    [
        (Literal["a", 2], {"enum": ["a", 2]}, "a", "a"),
        (Colour, {"enum": ["red", "blue"], "type": "string"}, "blue", Colour.BLUE),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, None),  # noqa: UP045
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "x", "x"),
        (list[str], {"type": "array", "items": {"type": "string"}}, ["a"], ["a"]),
        (list[list[int]], {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, [[1]], [[1]]),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}, {"a": 1}, {"a": 1.0}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
            [1, "a"],
            (1, "a"),
        ),
        (bool, {"type": "boolean"}, True, True),
        (Annotated[str, "How it is called."], {"type": "string"}, "a", "a"),
        (Annotated[str, Field(description="How it is called.")], {"description": "How it is called."}, "a", "a"),
        (Annotated[int, Field(ge=1, le=3)], {"minimum": 1, "maximum": 3}, 2, 2),
    ],
)
async def test_plain_types(annotation: Any, schema: dict[str, Any], value: object, got: object):
    described, error, received_value = await received(annotation, value)
    described |= described.get("$defs", {}).get("Colour", {})
    assert {name: described.get(name) for name in schema} == schema
    assert (error, received_value) == (None, got)


async def test_nested_dataclasses():
    schema, error, line = await received(Line, {"start": {"x": 1}, "end": {"x": 2, "tags": ["t"]}})
    assert error is None
    assert line == Line(Point(1), Point(2, tags=["t"]))
    assert schema["$defs"]["Point"]["required"] == ["x"]
    assert schema["$defs"]["Point"]["description"] == "A place."
    assert schema["$defs"]["Point"]["properties"]["label"] == {"type": "string", "default": "here"}


async def test_pydantic_models():
    schema, error, got = await received(list[Filter], [{"column": "a", "values": [1]}])
    assert (error, got) == (None, [Filter(column="a", values=[1])])
    assert schema["$defs"]["Filter"]["properties"]["column"]["description"] == "Which column."


async def test_typed_dictionaries():
    schema, error, got = await received(Options, {"depth": 1})
    assert (error, got) == (None, {"depth": 1})
    assert schema["$defs"]["Options"]["required"] == ["depth"]


@pytest.mark.parametrize(
    ("annotation", "value", "explanation"),
    [
        (Colour, "green", "argument 'value': Input should be 'red' or 'blue', got 'green'"),
        (Line, {"start": {}}, "missing argument 'value.start.x'"),
        (Filter, {"column": "a", "values": ["x"]}, "argument 'value.values.0': Input should be a valid integer"),
        (Options, {"depth": 1, "nota": "x"}, "unknown argument 'value.nota'"),
        (list[int], "none", "argument 'value': Input should be a valid list, got 'none'"),
    ],
)
async def test_mistakes_say_where_they_are(annotation: Any, value: object, explanation: str):
    _, error, content = await received(annotation, value)
    assert error == "bad_arguments"
    assert str(content).startswith("Bad arguments for take: ")
    assert explanation in str(content)


def test_a_docstring_describes_what_an_annotation_does_not():
    @tool
    def find(
        name: Annotated[str, Field(description="From the annotation.")], limit: Annotated[int, Field(ge=1)] = 3
    ) -> None:
        """Find.

        Args:
            limit: From the docstring.
        """

    assert find.parameters["properties"] == {
        "name": {"type": "string", "description": "From the annotation."},
        "limit": {"type": "integer", "minimum": 1, "description": "From the docstring.", "default": 3},
    }
