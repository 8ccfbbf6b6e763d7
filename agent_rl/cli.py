"""The command line: finds recipes and environments, turns options into configs, prints. Decides nothing itself.

A mistake of the user is one sentence on stderr and exit code 2; an interrupt is 130; a bug keeps its traceback.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_rl.config import Config, build, field_paths, load_config, nearest_field
from agent_rl.errors import ConfigError, UserError, not_found

if TYPE_CHECKING:
    from tyro.constructors import StructConstructorSpec, StructTypeInfo

C = TypeVar("C", bound=Config)
HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `agent-rl`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _dispatch(arguments))


def run_recipe(config_class: type[C], main: Callable[[C], object]) -> None:
    """What a recipe calls under `if __name__ == "__main__":`; the same as `agent-rl train <recipe>`. Exits."""
    sys.exit(_guarded(lambda: main(parse_options(config_class, sys.argv[1:], prog=sys.argv[0]))))


def _guarded(action: Callable[[], object]) -> int:
    """Run with the user's project importable, and turn what the user did into an exit code."""
    if (project := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, project)
    try:
        action()
    except SystemExit as error:  # tyro: 0 after --help, 2 after a malformed option
        return error.code if isinstance(error.code, int) else 2
    except BaseException as error:
        if _only(KeyboardInterrupt, error):
            return 130
        if user_errors := _only(UserError, error):
            message = Text.assemble(("error: ", "bold red"), str(user_errors[0]))
            Console(stderr=True).print(message, soft_wrap=True)
            return 2
        raise
    return 0


def _only(kind: type[BaseException], error: BaseException) -> list[BaseException]:
    """The leaves of an exception (task groups wrap them) if all are of one kind, else nothing."""
    leaves = [error]
    while any(isinstance(leaf, BaseExceptionGroup) for leaf in leaves):
        leaves = [part for leaf in leaves for part in (getattr(leaf, "exceptions", None) or (leaf,))]
    return leaves if all(isinstance(leaf, kind) for leaf in leaves) else []


# --- options --------------------------------------------------------------------------------------------------------


def parse_options(
    config_class: type[C],
    argv: Sequence[str],
    *,
    prog: str,
    positional: str = "",
    short: Mapping[str, str] | None = None,
) -> C:
    """Build a config from options; `--config FILE` (TOML or JSON) gives the defaults that the other options override.

    `positional` is a field given without its name, `short` maps fields to one-letter options. Help comes from the
    fields' descriptions. Raises `ConfigError` for unknown options (with the nearest name) and bad values.
    """
    import tyro

    argv, file = _take_config_file(argv)
    default = load_config(config_class, file) if file else tyro.MISSING
    options = tyro.constructors.ConstructorRegistry()
    options.struct_rule(lambda info: _options(info, positional, short or {}))
    values, unknown = tyro.cli(
        cast(Any, config_class),
        prog=prog,
        description=f"{_summary(config_class.__doc__)} `--config FILE` (TOML or JSON) gives other defaults.".lstrip(),
        args=argv,
        default=default,
        registry=options,
        return_unknown_args=True,
    )
    if unknown:
        raise _unknown_option(config_class, unknown, prog)
    return build(config_class, cast("dict[str, Any]", values))


def _options(info: StructTypeInfo, positional: str, short: Mapping[str, str]) -> StructConstructorSpec | None:
    """How tyro reads a config: into plain values, so that one place, pydantic, checks them and explains mistakes."""
    import tyro
    from tyro.constructors import MISSING, StructConstructorSpec, StructFieldSpec

    config_class = cast(object, info.type)  # pyright: ignore[reportUnknownMemberType]  # tyro leaves it open
    if not (isinstance(config_class, type) and issubclass(config_class, Config)):
        return None
    fields: list[StructFieldSpec] = []
    for name, field in config_class.model_fields.items():
        kind = Annotated[field.annotation, tyro.conf.arg(aliases=[short[name]])] if name in short else field.annotation
        kind = tyro.conf.Positional[kind] if name == positional else kind
        default = MISSING if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(info.default, Config):
            default = getattr(info.default, name)
        fields.append(StructFieldSpec(name, cast(Any, kind), default, helptext=field.description))
    return StructConstructorSpec(dict, tuple(fields))


def _take_config_file(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    rest, path = list(argv), None
    for index, token in enumerate(argv):
        option, _, value = token.partition("=")
        if option == "--config":
            value = value or next(iter(argv[index + 1 :]), "")
            if not value:
                raise ConfigError("--config needs the path of a TOML or JSON file.")
            path, width = Path(value), 1 if "=" in token else 2
            del rest[index : index + width]
            break
    return rest, path


def _unknown_option(config_class: type[Config], unknown: Sequence[str], prog: str) -> ConfigError:
    token = next((token for token in unknown if token.startswith("-")), unknown[0])
    if not token.startswith("-"):
        return ConfigError(f"Unexpected argument {token!r}: options are written --name value; see {prog} --help.")
    name = token.partition("=")[0].lstrip("-").replace("-", "_")
    near = nearest_field(name, list(field_paths(config_class)))
    hint = near.replace("'", "'--", 1).replace("_", "-") or f" See {prog} --help."
    return ConfigError(f"Unknown option {token!r}.{hint}")


# --- recipes --------------------------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """A script with one config and one function."""

    config: type[Config]
    main: Callable[[Any], object]


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a script by path. Raises `UserError` when it is not there or not a recipe."""
    path = _recipe_path(name)
    module = _import_file(path)
    config, main = getattr(module, "Config", None), getattr(module, "main", None)
    if not (isinstance(config, type) and issubclass(config, Config) and callable(main)):
        raise UserError(f"{path} is not a recipe: it must define `Config`, an agent_rl.Config, and `main(config)`.")
    return Recipe(config, main)


def _recipe_path(name: str) -> Path:
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"There is no script {name}: give the path of one, or the name of a shipped recipe.")
        return Path(name).resolve()
    recipes = _shipped_recipes()
    if name not in recipes:
        raise not_found("recipe", name, recipes, hint="Or give the path of a script that ends in .py.")
    return recipes[name]


def _shipped_recipes() -> dict[str, Path]:
    """Recipes by name: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    installed, checkout = package / "_recipes", package.parent / "recipes"
    folder = installed if installed.is_dir() else checkout
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def _import_file(path: Path) -> ModuleType:
    """Import a script as `python path` would: its folder is importable."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = f"agent_rl_recipe_{path.stem}"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    module = importlib.util.module_from_spec(cast(importlib.machinery.ModuleSpec, spec))
    sys.modules[name] = module  # type annotations of its Config are resolved there
    loader.exec_module(module)
    return module


# --- commands -------------------------------------------------------------------------------------------------------


def train(argv: Sequence[str]) -> None:
    """Train a policy with a recipe."""
    if not argv or argv[0] in HELP:
        rows = [(name, _summary(_docstring(path))) for name, path in _shipped_recipes().items()]
        return _print_table("Recipes; `agent-rl train RECIPE --help` shows the options of one:", (), rows)
    recipe = load_recipe(argv[0])
    recipe.main(parse_options(recipe.config, argv[1:], prog=f"agent-rl train {argv[0]}"))


def list_environments(argv: Sequence[str]) -> None:
    """List the environments that are registered or installed."""
    from agent_rl import registry

    _list(argv, "Environments", registry.environments(), registry.get_environment)


def list_tools(argv: Sequence[str]) -> None:
    """List the tools that are registered or installed."""
    from agent_rl import registry

    _list(argv, "Tools", registry.tools(), registry.get_tool)


def _list(argv: Sequence[str], title: str, targets: Mapping[str, str], load: Callable[[str], Any]) -> None:
    if argv:
        raise ConfigError(f"Unexpected argument {argv[0]!r}: listing takes none.")
    rows = [(id, target, _describe(load, id)) for id, target in targets.items()]
    _print_table(title, ("id", "defined in", ""), rows)


def _describe(load: Callable[[str], Any], id: str) -> str:
    try:
        found = load(id)
    except UserError as error:
        return str(error)
    return _summary(getattr(found, "description", None) or found.__doc__)


def _docstring(path: Path) -> str | None:
    """The docstring of a script, without running it."""
    return ast.get_docstring(ast.parse(path.read_text("utf-8")))


def _summary(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]


def _print_table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*columns, box=None, pad_edge=False, show_header=bool(columns))
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    Console(highlight=False).print(Text(title, "bold"), table)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "env list": list_environments,
    "tool list": list_tools,
}


def _dispatch(argv: Sequence[str]) -> None:
    if not argv or argv[0] in HELP:
        rows = [(f"agent-rl {name}", _summary(command.__doc__)) for name, command in COMMANDS.items()]
        return _print_table("Train and evaluate LLM agents that act over many turns with real tools.", (), rows)
    for name, command in COMMANDS.items():
        words = name.split()
        if list(argv[: len(words)]) == words:
            return command(argv[len(words) :])
    grouped = any(name.startswith(f"{argv[0]} ") for name in COMMANDS)
    raise not_found("command", " ".join(argv[: 2 if grouped else 1]), COMMANDS)
