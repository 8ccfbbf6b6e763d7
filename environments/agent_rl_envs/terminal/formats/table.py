"""Typed reading of what TOML and YAML files say, with errors that name file and field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from agent_rl.errors import UserError, did_you_mean
from agent_rl_envs.terminal.problems import Unsupported

T = TypeVar("T")


class Table:
    """A mapping of a file. What nobody took in the end is unknown."""

    def __init__(self, values: object, path: Path, name: str = "") -> None:
        self.path, self.name = path, name
        if not isinstance(values, Mapping):
            raise UserError(f"{path}: {name or 'the file'} must be a table of keys and values.")
        self._values = dict(cast(Mapping[str, Any], values))
        self._known: set[str] = set()

    def take(self, name: str, kind: type[T], default: T) -> T:
        """The value of a key; `default` where it is missing or null. A whole number will do for a float."""
        self._known.add(name)
        value: Any = self._values.get(name)
        if value is None:
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(name, f"must be {_WORDS.get(kind, kind.__name__)}, not {value!r}")
        return cast(T, value)

    def positive(self, name: str, default: float) -> float:
        """A number above 0."""
        value = self.take(name, float, default)
        if not 0 < value < float("inf"):
            raise self.wrong(name, f"must be above 0, not {value:g}")
        return value

    def strings(self, name: str) -> dict[str, str]:
        """A table of strings; numbers and booleans are taken as they are written."""
        values = cast(dict[object, object], self.take(name, dict, {}))
        bad = next((key for key, value in values.items() if not isinstance(value, str | int | float)), None)
        if bad is not None:
            raise self.wrong(f"{name}.{bad}", "must be a string")
        return {
            str(key): str(value).lower() if isinstance(value, bool) else str(value) for key, value in values.items()
        }

    def table(self, name: str) -> Table:
        """A table in this one; empty where it is missing."""
        return Table(self.take(name, dict, {}), self.path, self.where(name))

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Raises `Unsupported` for a key that is there and says something (not null, zero, false or empty)."""
        for name, reason in reasons.items():
            self._known.add(name)
            if self._values.get(name):
                raise Unsupported(f"{self.where(name)}: {reason}")

    def ignore(self, names: Iterable[str]) -> None:
        """Keys that change nothing here."""
        self._known.update(names)

    def end(self) -> None:
        """Raises `Unsupported` for a key that nobody knows: what it asks for would silently not be done."""
        for name in self._values:
            if name not in self._known:
                near = did_you_mean(name, self._known)
                raise Unsupported(f"{self.where(name)}: this key is not known.{near}")

    def where(self, name: str) -> str:
        """The field's name in messages."""
        return f"{self.name}.{name}" if self.name else name

    def wrong(self, name: str, what: str) -> UserError:
        """A field that is wrong."""
        return UserError(f"{self.path}: {self.where(name)} {what}.")


_WORDS: dict[type, str] = {
    str: "a string",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def load_yaml(path: Path) -> Any:
    """What a file says. Raises `UserError`."""
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path}: this is not YAML ({said}).") from error
