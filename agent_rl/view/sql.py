"""What queries need and SQLite and PostgreSQL say differently: conditions on the JSON of tasks, whole numbers.

A task may hold what Python writes as JSON and databases do not read: NaN, and in PostgreSQL texts with a NUL or half of
a surrogate pair. Such a task is not found; it must not spoil the search for others.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Integer, String, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

_ESCAPE = "/"
_UNREADABLE = r"'[:,\[]-?(NaN|Infinity)|\\u0000|\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]'"
"""For PostgreSQL, as a regular expression: `IS JSON` is not known before version 16."""


class Whole(FunctionElement[int]):
    """What is left of a number that is not negative without its fraction: `Whole(number)`."""

    type = Integer()
    inherit_cache = True


class TaskSays(FunctionElement[bool]):
    """Whether a message of the prompt is like a pattern (see `contains`), in any case.

    `TaskSays(task, pattern, in_json)`: tasks whose JSON is not like `in_json` are not parsed, which saves most of it.
    """

    type = Boolean()
    inherit_cache = True


class TaskIsTagged(FunctionElement[bool]):
    """Whether the task has a tag: `TaskIsTagged(task, tag)`."""

    type = Boolean()
    inherit_cache = True


def contains(text: str) -> ColumnElement[str]:
    """The pattern of what contains `text`, whatever special characters that has."""
    for special in (_ESCAPE, "%", "_"):
        text = text.replace(special, _ESCAPE + special)
    return literal(f"%{text}%", String)


def contains_in_json(text: str) -> ColumnElement[str]:
    """The pattern of JSON that may hold the text. Any, where case is not a matter of ASCII: escapes have no case."""
    return contains(json.dumps(text)[1:-1] if text.isascii() else "")


@compiles(Whole, "sqlite")
def _whole_in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS INTEGER)"


@compiles(Whole, "postgresql")
def _whole_in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"CAST(floor({compiler.process(element.clauses, **options)}) AS INTEGER)"


@compiles(TaskSays, "sqlite")
def _says_in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    task, pattern, in_json = (compiler.process(part, **options) for part in element.clauses)
    content = "json_extract(message.value, '$.content')"
    rows = f"json_each({task}, '$.prompt') AS message"
    says = _exists(rows, f"{content} LIKE {pattern} ESCAPE '{_ESCAPE}'")
    return f"CASE WHEN {task} LIKE {in_json} ESCAPE '{_ESCAPE}' AND json_valid({task}) THEN {says} ELSE 0 END"


@compiles(TaskSays, "postgresql")
def _says_in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    task, pattern, in_json = (compiler.process(part, **options) for part in element.clauses)
    rows = f"json_array_elements(CAST({task} AS json) -> 'prompt') AS message"
    says = _exists(rows, f"message ->> 'content' ILIKE {pattern} ESCAPE '{_ESCAPE}'")
    likely = f"{task} ILIKE {in_json} ESCAPE '{_ESCAPE}'"
    return f"CASE WHEN {likely} AND {task} !~ {_UNREADABLE} THEN {says} ELSE false END"


@compiles(TaskIsTagged, "sqlite")
def _tagged_in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    task, tag = (compiler.process(part, **options) for part in element.clauses)
    tagged = _exists(f"json_each({task}, '$.tags') AS tag", f"tag.value = {tag}")
    return f"CASE WHEN json_valid({task}) THEN {tagged} ELSE 0 END"


@compiles(TaskIsTagged, "postgresql")
def _tagged_in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    task, tag = (compiler.process(part, **options) for part in element.clauses)
    tagged = _exists(f"json_array_elements_text(CAST({task} AS json) -> 'tags') AS tag", f"tag = {tag}")
    return f"CASE WHEN {task} !~ {_UNREADABLE} THEN {tagged} ELSE false END"


def _exists(rows: str, condition: str) -> str:
    return f"EXISTS (SELECT 1 FROM {rows} WHERE {condition})"
