"""Configuration from files and overrides, mistakes explained, and no field that nothing reads."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from agent_rl.config import Config, build, changed_fields, check_same_config, dump_config, field_paths, load_config
from agent_rl.errors import ConfigError


class Optimiser(Config):
    lr: float = Field(1e-3, gt=0, description="Learning rate.")
    warmup_steps: int = Field(0, ge=0, description="Steps.")


class Run(Config):
    model: str = Field(description="Model folder.")
    steps: int = Field(10, ge=1, description="Steps.")
    mode: Literal["fast", "exact"] = Field("fast", description="Mode.")
    trackers: tuple[str, ...] = Field((), description="Trackers.")
    run_dir: Path | None = Field(None, description="Folder.")
    optimiser: Optimiser = Field(default_factory=Optimiser, description="Optimiser.")
    critic: Optimiser | None = Field(None, description="Critic.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mode == "exact" and self.steps > 100:
            raise ValueError("mode='exact' takes at most 100 steps: lower steps.")
        return self


TOML = """
model = "tiny"
trackers = ["wandb"]
[optimiser]
lr = 0.5
"""


def test_a_toml_and_a_json_file_and_overrides(tmp_path: Path):
    (tmp_path / "run.toml").write_text(TOML)
    (tmp_path / "run.json").write_text('{"model": "tiny", "trackers": ["wandb"], "optimiser": {"lr": 0.5}}')
    config = load_config(Run, tmp_path / "run.toml")
    assert config == load_config(Run, tmp_path / "run.json")
    assert config == Run(model="tiny", trackers=("wandb",), optimiser=Optimiser(lr=0.5))
    changed = load_config(Run, tmp_path / "run.toml", {"optimiser.warmup_steps": 3, "model": "big", "critic.lr": 1})
    assert changed.optimiser == Optimiser(lr=0.5, warmup_steps=3)
    assert (changed.model, changed.critic) == ("big", Optimiser(lr=1))


@given(
    steps=st.integers(1, 10**9),
    lr=st.floats(1e-300, 1e300),
    model=st.text(st.characters(codec="utf-8")),
    trackers=st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3),
    critic=st.none() | st.builds(Optimiser, lr=st.floats(1e-9, 1)),
)
def test_what_is_dumped_loads_back_equal(tmp_path_factory: pytest.TempPathFactory, steps, lr, model, trackers, critic):
    config = Run(
        model=model,
        steps=steps,
        trackers=tuple(trackers),
        run_dir=Path("runs/é"),
        optimiser=Optimiser(lr=lr),
        critic=critic,
    )
    path = tmp_path_factory.mktemp("config") / "config.json"
    dump_config(config, path)
    assert load_config(Run, path) == config


def test_a_config_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Run(model="x").steps = 3  # pyright: ignore


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "x", "stpes": 3}, "Bad Run: unknown field 'stpes'. Did you mean 'steps'?"),
        ({"model": "x", "lr": 3}, "Bad Run: unknown field 'lr'. Did you mean 'optimiser.lr'?"),
        (
            {"model": "x", "critic": {"warmup_step": 3}},
            "Bad Run: unknown field 'critic.warmup_step'. Did you mean 'critic.warmup_steps'?",
        ),
        ({"model": "x", "zzz": 3}, "Bad Run: unknown field 'zzz'."),
        ({}, "Bad Run: model: Field required"),
        (
            {"model": "x", "steps": 0, "optimiser": {"lr": -1}},
            "Bad Run: steps: Input should be greater than or equal to 1, got 0; "
            "optimiser.lr: Input should be greater than 0, got -1",
        ),
        ({"model": "x", "mode": "exact", "steps": 101}, "Bad Run: mode='exact' takes at most 100 steps: lower steps."),
    ],
)
def test_mistakes_are_explained_in_one_sentence(values: dict[str, object], message: str):
    with pytest.raises(ConfigError) as caught:
        build(Run, values)
    assert str(caught.value) == message


def test_mistakes_in_a_file_name_the_file(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text("modle = 1")
    with pytest.raises(ConfigError, match=r"Bad Run in .*run\.toml: model: Field required; unknown field 'modle'"):
        load_config(Run, path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.toml", None, "cannot be read: No such file or directory"),
        ("run.toml", "steps = ", "is not valid TOML: "),
        ("run.json", "{", "is not valid JSON: "),
        ("run.json", "[1]", "must hold named fields, not a list"),
        ("run.json", b"\xff", "is not valid JSON: "),
        ("run.yaml", "steps: 1", "must end in .toml or .json"),
    ],
)
def test_files_that_cannot_be_read_are_explained(tmp_path: Path, name: str, content: str | bytes | None, message: str):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(Run, path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_override_below_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"'model\.size' cannot be set: 'model' is a single value"):
        load_config(Run, overrides={"model": "x", "model.size": 3})


def test_changed_fields_make_the_same_config_again():
    changed = load_config(Run, None, {"optimiser.warmup_steps": 3, "critic.lr": 1, "model": "big"})
    assert changed_fields(changed) == {"model": "big", "optimiser.warmup_steps": 3, "critic.lr": 1, **_rest(changed)}
    assert load_config(Run, None, changed_fields(changed)) == changed
    assert changed_fields(Optimiser()) == {}


def _rest(run):
    """`critic` is None by default, so all of its fields are new."""
    return {f"critic.{name}": value for name, value in run.critic}


def test_field_paths_go_into_nested_configs():
    assert list(field_paths(Run)) == [
        *("model", "steps", "mode", "trackers", "run_dir"),
        *("optimiser", "optimiser.lr", "optimiser.warmup_steps"),
        *("critic", "critic.lr", "critic.warmup_steps"),
    ]


def test_a_run_goes_on_only_with_the_same_config():
    saved = Run(model="x")
    check_same_config(saved, Run(model="x"))
    check_same_config(saved, Run(model="x", steps=20), free=["steps"])
    with pytest.raises(ConfigError) as caught:
        check_same_config(saved, Run(model="x", steps=20, optimiser=Optimiser(lr=1)), free=["steps"])
    assert str(caught.value) == "This run was started with another config: optimiser.lr (was 0.001, now 1.0)."
    with pytest.raises(ConfigError, match=r"critic\.lr \(was None, now 0\.001\)"):
        check_same_config(saved, Run(model="x", critic=Optimiser()))


# --- the configs of the project -------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
FOLDERS = ("agent_rl", "environments", "tools", "sandboxes", "recipes")


@functools.cache
def nodes() -> list[ast.AST]:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path)))]


def config_classes() -> list[ast.ClassDef]:
    """All classes below `Config`, by the names of their bases."""
    classes = [node for node in nodes() if isinstance(node, ast.ClassDef)]
    names, count = {"Config"}, 0
    while count < len(names):
        count = len(names)
        found = [c for c in classes if any(ast.unparse(base).rpartition(".")[2] in names for base in c.bases)]
        names |= {c.name for c in found}
    return found


def fields(config: ast.ClassDef) -> Iterator[tuple[str, ast.AnnAssign]]:
    for node in config.body:
        is_field = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if is_field and not ast.unparse(node.annotation).startswith("ClassVar["):
            yield node.target.id, node


def test_the_configs_of_the_project_are_found():
    assert {"TrainConfig", "RolloutLimits", "LearnerConfig"} <= {config.name for config in config_classes()}


def test_no_option_is_silent():
    """Every field is read somewhere as an attribute."""
    read = {n.attr for n in nodes() if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    silent = [f"{config.name}.{name}" for config in config_classes() for name, _ in fields(config) if name not in read]
    assert silent == []


def test_every_option_has_a_description():
    bare = [
        f"{config.name}.{name}"
        for config in config_classes()
        for name, node in fields(config)
        if "description=" not in ast.unparse(node)
    ]
    assert bare == []
