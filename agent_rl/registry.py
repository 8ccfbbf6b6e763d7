"""Names for environments and tools: registered in code, declared by installed packages, or `"package.module:Name"`.

Knows how to find and import things, and checks what it found. Imports nothing until a name is asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, cast

from agent_rl.config import load_config
from agent_rl.environment import Environment, EnvironmentSpec
from agent_rl.errors import NotFoundError, UserError, did_you_mean, not_found
from agent_rl.tool import Tool, Toolset

T = TypeVar("T")
SCRIPT_MODULE = "agent_rl_recipe_"  # and the name of a script: its module, which cannot be imported by name
Command: TypeAlias = Callable[[Sequence[str]], None]
"""A command of `agent-rl`, called with the arguments after its name."""


def register_environment(id: str, entry: type[Environment] | str) -> None:
    """Make an environment known as `id`: a class, or `"package.module:Name"`, imported when it is first used.

    It wins over an installed package's entry point of that name. Raises `UserError` when `id` is taken by another.
    """
    _ENVIRONMENTS.register(id, entry)


def get_environment(id: str) -> type[Environment]:
    """The environment class called `id`, or named as `"package.module:Name"`. Raises `UserError` when there is none."""
    return _ENVIRONMENTS.get(id)


def environment_spec(id: str, options: Mapping[str, Any] | None = None) -> EnvironmentSpec:
    """The environment called `id` with its options, by field path (`{"sandbox.kind": "docker"}`).

    Raises `UserError` for an unknown id, and for options that it does not have.
    """
    kind = get_environment(id)
    return EnvironmentSpec(kind, load_config(kind.config_type, overrides=options))


def environment_to_json(spec: EnvironmentSpec) -> dict[str, Any]:
    """Its class and its wrappers as `"package.module:Name"`, and all of its options. What was made on the spot, such as
    a lambda, is written too, and cannot be read back.
    """
    return {
        "kind": _importable(spec.kind),
        "options": spec.config.model_dump(mode="json", fallback=repr),
        "wrappers": [_importable(each) if hasattr(each, "__qualname__") else repr(each) for each in spec.wrappers],
    }


def environment_from_json(data: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> EnvironmentSpec:
    """Inverse of `environment_to_json`, with other `options` where they are given.

    Raises `UserError` when its class or a wrapper cannot be found.
    """
    if nameless := [target for target in data["wrappers"] if "<" in target]:
        raise UserError(
            f"The run's environment is wrapped by {nameless[0]}, which cannot be imported: name an environment that "
            "wraps itself, with --environment."
        )
    spec = environment_spec(data["kind"], {**data["options"], **(options or {})})
    return replace(spec, wrappers=tuple(map(_WRAPPERS.get, data["wrappers"])))


def environments() -> dict[str, str]:
    """All known ids with where they come from (`"package.module:Name"`), sorted, without importing any."""
    return _ENVIRONMENTS.targets()


def register_tool(id: str, entry: Tool | str) -> None:
    """Make a tool known as `id`, like `register_environment`."""
    _TOOLS.register(id, entry)


def get_tool(id: str) -> Tool:
    """The tool called `id`, or named as `"package.module:name"`. Raises `UserError` when there is none."""
    return _TOOLS.get(id)


def tools() -> dict[str, str]:
    """All known ids with where they come from, sorted, without importing any."""
    return _TOOLS.targets()


def register_toolset(id: str, entry: type[Toolset] | str) -> None:
    """Make a toolset known as `id`, like `register_environment`."""
    _TOOLSETS.register(id, entry)


def get_toolset(id: str) -> type[Toolset]:
    """The toolset called `id`, or named as `"package.module:Name"`. Raises `UserError` when there is none."""
    return _TOOLSETS.get(id)


def toolsets() -> dict[str, str]:
    """All known ids with where they come from, sorted, without importing any."""
    return _TOOLSETS.targets()


def commands() -> dict[str, str]:
    """Where the commands of installed packages come from, by their words with dots between; without importing any."""
    return _COMMANDS.targets()


def get_command(id: str) -> Command:
    """The command called `id`, or named as `"package.module:name"`. Raises `UserError` when there is none."""
    return _COMMANDS.get(id)


def get_served(id: str) -> Tool | type[Toolset] | type[Environment]:
    """The tool, toolset or environment called `id`. Raises `UserError` when there is none, or more than one."""
    if ":" in id:
        return _SERVED.get(id)
    kinds: list[Registry[Any]] = [r for r in (_TOOLS, _TOOLSETS, _ENVIRONMENTS) if id in r.targets()]
    if len(kinds) > 1:
        raise UserError(f"{id!r} names a {' and a '.join(r.kind for r in kinds)}: use 'package.module:Name' instead.")
    known = [name for registry in (_TOOLS, _TOOLSETS, _ENVIRONMENTS) for name in registry.targets()]
    if not kinds:
        raise not_found(_SERVED.kind, id, known, hint="Or name one as 'package.module:Name'.")
    return kinds[0].get(id)


@dataclass(slots=True)
class Registry(Generic[T]):
    """The names of one kind of object. `group` is the entry point group that packages declare theirs in.

    What its methods do is told by the functions above, which are two of its uses.
    """

    kind: str
    expected: str
    group: str
    is_valid: Callable[[object], bool]
    registered: dict[str, T | str] = field(default_factory=dict[str, T | str])

    def register(self, id: str, entry: T | str) -> None:
        """See `register_environment`."""
        if not id or ":" in id:
            raise UserError(f"{id!r} cannot be the name of a {self.kind}: use a short name without ':'.")
        if not isinstance(entry, str):
            self._check(entry, repr(entry))
        elif ":" not in entry:
            raise UserError(f"{entry!r} does not say where the {self.kind} is: write 'package.module:Name'.")
        taken = self.registered.get(id)
        if taken is not None and taken is not entry and taken != entry:
            raise UserError(f"The {self.kind} {id!r} is already registered as {_target(taken)}: choose another name.")
        self.registered[id] = entry

    def get(self, id: str) -> T:
        """See `get_environment`."""
        entry = self.registered.get(id)
        if entry is None:
            entry = id if ":" in id else self._declared(id)
        return self._check(_load(entry, self.kind, self.is_valid), id) if isinstance(entry, str) else entry

    def targets(self) -> dict[str, str]:
        """See `environments`."""
        declared = {id: " or ".join(targets) for id, targets in _entry_points(self.group).items()}
        return dict(sorted((declared | {id: _target(entry) for id, entry in self.registered.items()}).items()))

    def _declared(self, id: str) -> str:
        targets = _entry_points(self.group).get(id)
        if targets is None:
            raise not_found(self.kind, id, self.targets(), hint="Or name one as 'package.module:Name'.")
        if len(targets) > 1:
            raise UserError(
                f"Installed packages disagree on the {self.kind} {id!r}: use {' or '.join(map(repr, targets))} instead."
            )
        return targets[0]

    def _check(self, value: Any, where: str) -> T:
        if not self.is_valid(value):
            raise UserError(f"{where} is not {self.expected}, but {type(value).__name__} {value!r:.100}.")
        return cast(T, value)


@functools.cache
def _entry_points(group: str) -> dict[str, list[str]]:
    """What the installed packages declare: name -> distinct targets (more than one when two packages disagree)."""
    found: dict[str, list[str]] = {}
    for point in importlib.metadata.entry_points(group=group):
        targets = found.setdefault(point.name, [])
        if point.value not in targets:
            targets.append(point.value)
    return found


def _target(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    defined = entry.function if isinstance(entry, Tool) else entry
    return f"{defined.__module__}:{defined.__qualname__}"


def _importable(defined: Any) -> str:
    """By the module that another process knows: a script is one for those who run in its folder."""
    module = defined.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is not None and Path(file).stem not in (module.rpartition(".")[2], "__init__"):
        module = Path(file).stem
    return f"{module}:{defined.__qualname__}"


def _load(target: str, kind: str, is_valid: Callable[[object], bool]) -> object:
    """Import `package.module:Name`. Errors inside the module's own code keep their traceback."""
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{module_name}.".startswith(f"{missing}."):
            raise NotFoundError(
                f"The {kind} {target!r} cannot be loaded: there is no module {missing!r}; "
                "install its package, or run from the folder that contains it."
            ) from error
        raise UserError(f"The {kind} {target!r} needs the package {missing!r}: install it first.") from error
    if not hasattr(module, name):
        there = [name for name, value in vars(module).items() if is_valid(value)]
        listed = ", ".join(sorted(there)) or "none"
        raise NotFoundError(
            f"Module {module_name!r} has no {name!r}.{did_you_mean(name, there)} Of kind {kind} it has: {listed}."
        )
    return getattr(module, name)


def _is_environment(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Environment) and not inspect.isabstract(value)


def _is_tool(value: object) -> bool:
    return isinstance(value, Tool)


def _is_toolset(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Toolset) and not inspect.isabstract(value)


_ENVIRONMENTS: Registry[type[Environment]] = Registry(
    "environment", "a complete subclass of agent_rl.Environment", "agent_rl.environments", _is_environment
)
_TOOLS: Registry[Tool] = Registry("tool", "an @agent_rl.tool", "agent_rl.tools", _is_tool)
_TOOLSETS: Registry[type[Toolset]] = Registry(
    "toolset", "a complete subclass of agent_rl.Toolset", "agent_rl.toolsets", _is_toolset
)
_WRAPPERS: Registry[Callable[[Environment], Environment]] = Registry(
    "wrapper of an environment", "a function of an environment", "", callable
)
_COMMANDS: Registry[Command] = Registry("command", "a function of arguments", "agent_rl.commands", callable)
_SERVED: Registry[Tool | type[Toolset] | type[Environment]] = Registry(
    "tool, toolset or environment",
    "an @agent_rl.tool, an agent_rl.Toolset or an agent_rl.Environment",
    "",
    lambda value: _is_tool(value) or _is_toolset(value) or _is_environment(value),
)
