"""Names of environments and tools: by registration, entry point or dotted name; and what is said when there is none."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import Field

from agent_rl import registry
from agent_rl.cli import _import_file
from agent_rl.config import Config
from agent_rl.environment import Environment, EnvironmentSpec
from agent_rl.errors import NotFoundError, UserError
from agent_rl.registry import (
    environment_from_json,
    environment_to_json,
    environments,
    get_environment,
    get_tool,
    register_environment,
    register_tool,
    tools,
)
from agent_rl.tool import tool
from agent_rl.types import Message, Step, Task
from agent_rl.wrapper import EnvironmentWrapper


class Nothing(Environment):
    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> Sequence[Task]:
        return ()

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        return ()

    async def step(self, action: Message) -> Step:
        return Step(())


class Other(Nothing):
    pass


@tool
async def hello() -> str:
    """Say hello."""
    return "hello"


PROJECT = '''
from agent_rl import Environment, tool
from test_registry_base import Nothing

class Mine(Nothing):
    """My environment."""

class Unfinished(Environment):
    """Lacks everything."""

@tool
def shout(text: str) -> str:
    """Shout.

    Args:
        text: What.
    """
    return text.upper()

number = 3
'''


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry._ENVIRONMENTS, "registered", {})
    monkeypatch.setattr(registry._TOOLS, "registered", {})
    yield
    registry._entry_points.cache_clear()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's project on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "test_registry_base", SimpleNamespace(Nothing=Nothing))  # pyright: ignore
    (tmp_path / "my_project.py").write_text(PROJECT)
    (tmp_path / "broken_project.py").write_text("import not_installed_anywhere\n")
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    return tmp_path


def declare(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Pretend that installed packages have these environment entry points."""

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(*point, group) for point in points if group == "agent_rl.environments"]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    registry._entry_points.cache_clear()


def test_a_registered_class_is_found():
    register_environment("nothing", Nothing)
    assert get_environment("nothing") is Nothing
    assert environments()["nothing"].endswith("test_registry:Nothing")


class Bounds(Config):
    low: int = Field(0, description="Least.")
    high: float = Field(1.0, description="Largest.")


class Within(Nothing):
    config_type = Bounds

    def __init__(self, config: Bounds) -> None:
        self.config = config


def doubled(environment: Environment) -> Environment:
    return environment


def test_an_environment_is_written_down_with_its_options_and_comes_back():
    spec = EnvironmentSpec(Within, Bounds(low=3, high=float("inf"))).wrapped(doubled).wrapped(EnvironmentWrapper)
    written = json.loads(json.dumps(environment_to_json(spec)))
    assert environment_from_json(written) == spec
    assert environment_from_json(written, {"low": 5}).config == Bounds(low=5, high=float("inf"))
    with pytest.raises(UserError, match="'lo'"):
        environment_from_json(written, {"lo": 5})


def test_a_wrapper_without_a_name_is_written_and_cannot_be_read_back():
    spec = EnvironmentSpec(Nothing, Config()).wrapped(lambda environment: environment)
    with pytest.raises(UserError, match=r"wrapped by .*<lambda>, which cannot be imported: name an environment"):
        environment_from_json(environment_to_json(spec))
    partly = spec.wrapped(functools.partial(doubled))
    assert "functools.partial" in environment_to_json(partly)["wrappers"][1]


def test_an_environment_in_a_script_is_found_by_those_who_run_beside_it(project: Path):
    """Whether the script was run by itself, or by `agent-rl train script.py`."""
    (project / "my_script.py").write_text(
        "import json\n"
        "from agent_rl.environment import EnvironmentSpec\n"
        "from agent_rl.registry import environment_to_json\n"
        "from agent_rl.testing.environments import GuessNumber\n\n"
        "class Mine(GuessNumber):\n    pass\n\n"
        "if __name__ == '__main__':\n"
        "    print(json.dumps(environment_to_json(EnvironmentSpec(Mine, Mine.config_type()))))\n"
    )
    said = subprocess.run([sys.executable, "my_script.py"], cwd=project, check=True, capture_output=True, text=True)
    assert environment_from_json(json.loads(said.stdout)).kind.__module__ == "my_script"
    module = _import_file(project / "my_script.py")
    spec = EnvironmentSpec(module.Mine, module.Mine.config_type())
    assert spec.kind.__module__ == "agent_rl_recipe_my_script"
    assert environment_to_json(spec)["kind"] == "my_script:Mine"


def test_a_registered_tool_is_found():
    register_tool("hello", hello)
    assert get_tool("hello") is hello
    assert tools() == {"hello": f"{__name__}:hello"}


def test_a_registered_dotted_name_is_imported_when_first_used(project: Path):
    register_environment("mine", "my_project:Mine")
    register_environment("absent", "no_such_project:Mine")
    assert "my_project" not in sys.modules
    assert environments()["mine"] == "my_project:Mine"
    assert get_environment("mine").__doc__ == "My environment."


def test_a_dotted_name_needs_no_registration(project: Path):
    assert get_environment("my_project:Mine").__name__ == "Mine"
    assert get_tool("my_project:shout").name == "shout"


def test_an_entry_point_is_found_and_an_explicit_registration_wins(project: Path, monkeypatch: pytest.MonkeyPatch):
    declare(monkeypatch, ("mine", "my_project:Mine"), ("zoo", "zoo:Zoo"))
    assert environments() == {"mine": "my_project:Mine", "zoo": "zoo:Zoo"}
    assert get_environment("mine").__name__ == "Mine"
    register_environment("mine", Nothing)
    assert get_environment("mine") is Nothing
    assert list(environments()) == ["mine", "zoo"]


def test_packages_that_disagree_are_told_apart_by_the_user(project: Path, monkeypatch: pytest.MonkeyPatch):
    mine = ("mine", "my_project:Mine")
    declare(monkeypatch, mine, ("mine", "zoo:Zoo"), ("same", "my_project:Mine"), ("same", "my_project:Mine"))
    assert get_environment("same").__name__ == "Mine"
    with pytest.raises(UserError, match=r"disagree on the environment 'mine': use 'my_project:Mine' or 'zoo:Zoo'"):
        get_environment("mine")


def test_a_name_is_taken_once():
    register_environment("nothing", Nothing)
    register_environment("nothing", Nothing)
    with pytest.raises(UserError, match=r"'nothing' is already registered as .*test_registry:Nothing: choose another"):
        register_environment("nothing", Other)


@pytest.mark.parametrize("id", ["", "my:name"])
def test_names_are_short(id: str):
    with pytest.raises(UserError, match=r"without ':'"):
        register_environment(id, Nothing)


def test_an_unknown_name_says_what_exists(monkeypatch: pytest.MonkeyPatch):
    declare(monkeypatch, ("sql", "agent_rl_envs.sql_lookup:SqlLookup"))
    register_environment("nothing", Nothing)
    with pytest.raises(NotFoundError) as caught:
        get_environment("noting")
    assert str(caught.value) == (
        "Unknown environment 'noting'. Did you mean 'nothing'? Known: nothing, sql. "
        "Or name one as 'package.module:Name'."
    )


def test_wrong_objects_are_refused_at_registration():
    with pytest.raises(UserError, match=r"is not a complete subclass of agent_rl.Environment, but int 3"):
        register_environment("three", 3)  # pyright: ignore
    with pytest.raises(UserError, match=r"is not an @agent_rl.tool, but function"):
        register_tool("plain", hello.function)  # pyright: ignore
    with pytest.raises(UserError, match=r"does not say where the environment is: write 'package.module:Name'"):
        register_environment("nowhere", "my_project.Mine")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("my_project:number", "my_project:number is not a complete subclass of agent_rl.Environment, but int 3."),
        ("my_project:Unfinished", "my_project:Unfinished is not a complete subclass"),
        ("my_project:Mime", "Module 'my_project' has no 'Mime'. Did you mean 'Mine'? Of kind environment it has: Mine"),
        ("my_projekt:Mine", "there is no module 'my_projekt'; install its package, or run from the folder"),
        ("my_project.sub:Mine", "there is no module 'my_project.sub'"),
        ("broken_project:Mine", "needs the package 'not_installed_anywhere': install it first."),
    ],
)
def test_a_dotted_name_that_leads_nowhere_is_explained(project: Path, target: str, message: str):
    with pytest.raises(UserError) as caught:
        get_environment(target)
    assert message in str(caught.value)
