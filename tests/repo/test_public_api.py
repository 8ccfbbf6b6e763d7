"""The public names, pinned: changing them is a decision, not an accident."""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

import agent_rl

NAMES = {
    "agent_rl.config": ["Config", "load_config"],
    "agent_rl.environment": ["Environment"],
    "agent_rl.errors": ["ConfigError", "RolloutFailure", "ToolError", "UserError"],
    "agent_rl.registry": [
        *("environments", "get_environment", "get_tool", "get_toolset"),
        *("register_environment", "register_tool", "register_toolset", "tools", "toolsets"),
    ],
    "agent_rl.tool": ["Tool", "ToolEnvironment", "Toolset", "run_tool_calls", "tool"],
    "agent_rl.types": [
        *("Failure", "Group", "Message", "SamplingParams", "Step", "StepInfo", "StopReason"),
        *("Task", "ToolCall", "ToolResult", "Trajectory", "Turn"),
    ],
}
PUBLIC = sorted(name for names in NAMES.values() for name in names)


def test_the_public_names():
    assert sorted(agent_rl.__all__) == PUBLIC
    assert sorted(dir(agent_rl)) == PUBLIC


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_each_is_the_object_of_its_module(module: str, name: str):
    assert getattr(agent_rl, name) is importlib.import_module(module).__dict__[name]


def test_what_type_checkers_see_is_what_there_is():
    """The imports under TYPE_CHECKING name the same modules as the lazy table."""
    tree = ast.parse(inspect.getsource(agent_rl))
    seen = {n.module: sorted(a.name for a in n.names) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {module: names for module, names in seen.items() if module in NAMES} == NAMES
    assert sorted(seen) == sorted([*NAMES, "__future__", "types", "typing"])


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'agent_rl' has no attribute 'Toool'"):
        agent_rl.Toool  # noqa: B018  # pyright: ignore


@pytest.mark.parametrize(
    "order",
    [
        "import agent_rl.tool, agent_rl",
        "import agent_rl; agent_rl.tool; import agent_rl.tool",
        "import agent_rl; import agent_rl.registry",
    ],
)
def test_tool_is_the_decorator_whatever_is_imported_first(order: str):
    program = f"{order}\nfrom agent_rl import tool\n@agent_rl.tool\ndef f() -> None: ...\nassert tool is agent_rl.tool"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
