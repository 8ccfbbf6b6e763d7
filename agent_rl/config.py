"""Configuration that fails loudly: frozen, typed, no unknown fields; read from files, written down with each run.

Knows files, field paths (`learner.lr`) and how to explain a mistake in one sentence. Knows nothing of what fields mean.
"""

from __future__ import annotations

import inspect
import json
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from agent_rl.errors import ConfigError, not_found

C = TypeVar("C", bound="Config")

Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""An option from 0 to 1, such as a discount."""

Positive: TypeAlias = Annotated[float, Field(gt=0)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
class _ConfigType(type(BaseModel)):
    """Tells type checkers that `Field(3, ...)` is a default: by pydantic's own declaration only `default=3` is one."""


class Config(BaseModel, metaclass=_ConfigType):
    """Base of all configuration: declare fields with `Field(default, description=...)`, nest other configs freely."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


def load_config(cls: type[C], path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> C:
    """Build a config from a TOML or JSON file and `overrides` by field path (`{"learner.lr": 1e-4}`), which win.

    Raises `ConfigError` for a missing or malformed file, unknown fields (with the nearest name) and bad values.
    """
    values = read_values(path) if path else {}
    for field_path, value in (overrides or {}).items():
        _set(values, field_path, value)
    return build(cls, values, where=f" in {path}" if path else "")


def build(cls: type[C], values: Mapping[str, Any], *, where: str = "") -> C:
    """Check `values` and build the config. Raises `ConfigError` that explains all mistakes in one sentence."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        problems = [_explain(cls, problem) for problem in error.errors(include_url=False, include_context=False)]
        raise ConfigError(f"Bad {cls.__name__}{where}: {'; '.join(problems)}") from error


def dump_config(config: Config, path: Path) -> None:
    """Write every field, defaults included, as JSON that `load_config` reads back to an equal config."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)  # a killed run leaves the old file or the new one


def dump_defaults(cls: type[Config], path: Path) -> None:
    """Write the fields that have a default, as JSON, for those who compare a config and cannot import its class."""
    path.write_text(json.dumps(cls.model_construct().model_dump(mode="json", warnings=False)) + "\n", encoding="utf-8")


def check_same_config(saved: Config, current: Config, *, free: Collection[str] = ()) -> None:
    """Raise `ConfigError` when a run would go on under other settings. `free` are field paths that may change."""
    before, after = dict(_leaves(saved)), dict(_leaves(current))
    changed = [
        f"{path} (was {before.get(path)!r}, now {after.get(path)!r})"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path) and path not in free
    ]
    if changed:
        raise ConfigError(f"This run was started with another config: {'; '.join(changed)}.")


def read_values(path: Path) -> dict[str, Any]:
    """The raw content of a `.toml` or `.json` file. Raises `ConfigError` when it cannot be read or is not a table."""
    parsers: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in parsers:
        raise ConfigError(f"The config file {path} must end in {' or '.join(parsers)}.")
    try:
        values = parsers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The config file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"The config file {path} is not valid {path.suffix.lstrip('.').upper()}: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The config file {path} must hold named fields, not a {type(values).__name__}.")
    return cast("dict[str, Any]", values)


def field_paths(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all fields, those of nested configs included."""
    for name, info in cls.model_fields.items():
        yield prefix + name
        if nested := nested_config(info.annotation):
            yield from field_paths(nested, f"{prefix}{name}.")


def changed_fields(config: Config) -> dict[str, Any]:
    """The fields that are not what their class has by default, by path."""
    changed: dict[str, Any] = {}
    for name, value in config:
        default = type(config).model_fields[name].get_default(call_default_factory=True)
        if not isinstance(value, Config):
            changed |= {name: value} if value != default else {}
            continue
        before = dict(_leaves(default)) if isinstance(default, Config) else {}
        now = _leaves(value)
        changed |= {f"{name}.{path}": leaf for path, leaf in now if path not in before or before[path] != leaf}
    return changed


def nested_config(annotation: Any) -> type[Config] | None:
    """The config class in `Nested` or `Nested | None`."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = typing.get_args(annotation) if is_union else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Config)), None)


def nearest_field(name: str, known: Collection[str]) -> str:
    """` Did you mean 'learner.lr'?` for the known path whose last part is nearest to that of `name`, or nothing."""
    parent, _, leaf = name.rpartition(".")
    by_leaf: dict[str, str] = {}
    for path in sorted(known, key=lambda path: path.rpartition(".")[0] != parent):
        by_leaf.setdefault(path.rpartition(".")[2], path)
    near = get_close_matches(leaf, by_leaf, n=1, cutoff=0.6)
    return f" Did you mean {by_leaf[near[0]]!r}?" if near else ""


def _explain(cls: type[BaseModel], problem: ErrorDetails) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown field {path!r}.{nearest_field(path, list(field_paths(cls)))}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("value_error", "missing"):
        return f"{path}: {message}" if path else message
    return f"{path}: {message}, got {problem['input']!r:.100}"


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, name = path.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if type(values) is not dict:
            raise ConfigError(f"{path!r} cannot be set: {group!r} is a single value, not a group of fields.")
    values[name] = value


def _leaves(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config:
        if isinstance(value, Config):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def bind_options(what: str, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as the annotations of the function's keyword-only parameters say. `what` names it in errors.

    Raises `NotFoundError` for an option that it does not have, `ConfigError` for a value that does not fit.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    known = {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
    for option in options:
        if option not in known:
            raise not_found(f"option of {what}", option, known)
    try:
        return {option: TypeAdapter(known[option]).validate_python(value) for option, value in options.items()}
    except ValidationError as error:
        raise ConfigError(f"Bad option of {what}: {error.errors()[0]['msg']}.") from error
