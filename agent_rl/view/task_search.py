"""Conditions on the JSON of tasks, in the SQL of SQLite and of PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, String, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

_ESCAPE = "/"


class TaskSays(FunctionElement[bool]):
    """Whether a message of the prompt is like a pattern (see `contains`), in any case: `TaskSays(task, pattern)`."""

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


@compiles(TaskSays, "sqlite")
def _says_in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    task, pattern = (compiler.process(part, **options) for part in element.clauses)
    content = "json_extract(message.value, '$.content')"
    rows = f"json_each({task}, '$.prompt') AS message"
    return _if_json(task, _exists(rows, f"{content} LIKE {pattern} ESCAPE '{_ESCAPE}'"))


@compiles(TaskSays, "postgresql")
def _says_in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    task, pattern = (compiler.process(part, **options) for part in element.clauses)
    rows = f"json_array_elements(CAST({task} AS json) -> 'prompt') AS message"
    return _exists(rows, f"message ->> 'content' ILIKE {pattern} ESCAPE '{_ESCAPE}'")


@compiles(TaskIsTagged, "sqlite")
def _tagged_in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    task, tag = (compiler.process(part, **options) for part in element.clauses)
    return _if_json(task, _exists(f"json_each({task}, '$.tags') AS tag", f"tag.value = {tag}"))


@compiles(TaskIsTagged, "postgresql")
def _tagged_in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    task, tag = (compiler.process(part, **options) for part in element.clauses)
    return _exists(f"json_array_elements_text(CAST({task} AS json) -> 'tags') AS tag", f"tag = {tag}")


def _if_json(text: str, condition: str) -> str:
    """A task's data may hold NaN, which Python writes and SQLite does not read."""
    return f"CASE WHEN json_valid({text}) THEN {condition} ELSE 0 END"


def _exists(rows: str, condition: str) -> str:
    return f"EXISTS (SELECT 1 FROM {rows} WHERE {condition})"
