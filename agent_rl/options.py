"""From a config class to command-line options and back. The only module that knows tyro.

tyro reads the tokens into plain values; pydantic checks them, so that a mistake in an option is explained like one in
a file, in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from agent_rl.config import Config, build, field_paths, nearest_field, nested_config, read_values
from agent_rl.errors import ConfigError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from tyro.constructors import StructConstructorSpec, StructTypeInfo

C = TypeVar("C", bound=Config)


@dataclass(frozen=True, slots=True)
class OptionStyle:
    """How the fields of one config look as options: one field without its name, one-letter names, other defaults.

    Fields that are `in_file` have no option: only the file of `--config` sets them.
    """

    positional: str = ""
    in_file: tuple[str, ...] = ()
    short: Mapping[str, str] = field(default_factory=dict[str, str])
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])


def parse_options(config_class: type[C], argv: Sequence[str], *, prog: str, style: OptionStyle | None = None) -> C:
    """Build a config from options; `--config FILE` (TOML or JSON) gives the defaults that the other options override.

    Help comes from the fields' descriptions; `model_fields_set` are those that were told. Raises `ConfigError` for
    unknown options (with the nearest name) and bad values.
    """
    import tyro

    style = style or OptionStyle()
    summary = (config_class.__doc__ or "").strip().partition("\n")[0]
    argv, file = _take_config_file(argv)
    default = _from_file(config_class, file) if file else tyro.MISSING
    options = tyro.constructors.ConstructorRegistry()
    options.struct_rule(lambda info: _options(info, style))
    values, unknown = tyro.cli(
        cast(Any, config_class),
        prog=prog,
        description=f"{summary} `--config FILE` (TOML or JSON) gives other defaults.".lstrip(),
        args=argv,
        default=default,
        registry=options,
        return_unknown_args=True,
    )
    if unknown:
        raise _unknown_option(config_class, unknown, prog)
    told = _named(argv) | style.defaults.keys() | (default.model_fields_set if file else set())
    given: dict[str, Any] = {
        name: value
        for name, value in cast("dict[str, Any]", values).items()
        if name in told or not _is_default(value, config_class.model_fields[name])
    }
    return build(config_class, given | {name: getattr(default, name) for name in (style.in_file if file else ())})


def _is_default(value: Any, declared: FieldInfo) -> bool:
    """tyro fills in what was not told; an option of a nested config, which is a dict here, has that one's name."""
    return nested_config(declared.annotation) is not None or value == declared.get_default(call_default_factory=True)


def _named(argv: Sequence[str]) -> set[str]:
    options = (token.partition("=")[0].partition(".")[0] for token in argv if token.startswith("--"))
    names = {option.lstrip("-").replace("-", "_") for option in options}
    return names | {name.removeprefix("no_") for name in names}


def _options(info: StructTypeInfo, style: OptionStyle) -> StructConstructorSpec | None:
    """The rule by which tyro reads configs, nested ones included."""
    import tyro
    from tyro.constructors import MISSING, StructConstructorSpec, StructFieldSpec

    kind = cast(object, info.type)  # pyright: ignore[reportUnknownMemberType]  # tyro leaves it open
    if isinstance(kind, type) and issubclass(kind, _Absent):
        return _absent_options(kind)
    if not (isinstance(kind, type) and issubclass(kind, Config)):
        return None
    fields: list[StructFieldSpec] = []
    for name, declared in kind.model_fields.items():
        if name in style.in_file:
            continue
        default: Any = _default(info, name, declared, style)
        option: Any = declared.annotation
        if nested := nested_config(option):
            option, default = (_Absent.of(nested), MISSING) if default is None else (nested, default)
        if name in style.short:
            option = Annotated[option, tyro.conf.arg(aliases=[style.short[name]])]
        if name == style.positional:
            option = tyro.conf.Positional[Annotated[option, tyro.conf.arg(metavar=name.upper())]]
        fields.append(StructFieldSpec(name, option, default, helptext=declared.description))
    return StructConstructorSpec(dict, tuple(fields))


class _Absent:
    """Stands for a nested config that is `None` by default, and exists as soon as one of its options is given."""

    config: type[Config]

    @classmethod
    def of(cls, config: type[Config]) -> type[_Absent]:
        return type(config.__name__, (cls,), {"config": config})


def _absent_options(kind: type[_Absent]) -> StructConstructorSpec:
    from tyro.constructors import MISSING, StructConstructorSpec, StructFieldSpec

    def given(**values: Any) -> dict[str, Any] | None:
        return {name: value for name, value in values.items() if value is not None} or None

    fields: list[StructFieldSpec] = []
    for name, declared in kind.config.model_fields.items():
        nested = nested_config(declared.annotation)
        option: Any = _Absent.of(nested) if nested else Optional[declared.annotation]  # noqa: UP045  # not a literal
        fields.append(StructFieldSpec(name, option, MISSING if nested else None, helptext=declared.description))
    return StructConstructorSpec(given, tuple(fields))


def _default(info: StructTypeInfo, name: str, field: FieldInfo, style: OptionStyle) -> Any:
    """From the config file, else from the command, else from the class."""
    from tyro.constructors import MISSING

    if isinstance(info.default, Config):
        return getattr(info.default, name, MISSING)
    if name in style.defaults:
        return style.defaults[name]
    return MISSING if field.is_required() else field.get_default(call_default_factory=True)


def _from_file(config_class: type[C], path: Path) -> C:
    """The file's config; what is still missing in it, or does not fit together yet, the options may complete.

    Raises `ConfigError` for unknown fields and bad values.
    """
    values, where = read_values(path), f" in {path}"
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        if any(problem["loc"] and problem["type"] != "missing" for problem in error.errors()):
            return build(config_class, values, where=where)  # raises, with an explanation
    fields = {name: field for name, field in config_class.model_fields.items() if name in values}
    given = {name: TypeAdapter(cast(Any, f.annotation)).validate_python(values[name]) for name, f in fields.items()}
    return config_class.model_construct(**given)


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
