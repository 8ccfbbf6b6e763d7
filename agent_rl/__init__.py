"""Train and evaluate LLM agents that act over many turns with real tools.

The public names, each imported from its module when it is first used, so that `import agent_rl` stays fast.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_rl.config import Config, load_config
    from agent_rl.environment import Environment
    from agent_rl.errors import ConfigError, RolloutFailure, ToolError, UserError
    from agent_rl.registry import (
        environments,
        get_environment,
        get_tool,
        get_toolset,
        register_environment,
        register_tool,
        register_toolset,
        tools,
        toolsets,
    )
    from agent_rl.tool import Tool, ToolEnvironment, Toolset, run_tool_calls, tool
    from agent_rl.types import (
        Failure,
        Group,
        Message,
        SamplingParams,
        Step,
        StepInfo,
        StopReason,
        Task,
        ToolCall,
        ToolResult,
        Trajectory,
        Turn,
    )

__all__ = [
    "Config",
    "ConfigError",
    "Environment",
    "Failure",
    "Group",
    "Message",
    "RolloutFailure",
    "SamplingParams",
    "Step",
    "StepInfo",
    "StopReason",
    "Task",
    "Tool",
    "ToolCall",
    "ToolEnvironment",
    "ToolError",
    "ToolResult",
    "Toolset",
    "Trajectory",
    "Turn",
    "UserError",
    "environments",
    "get_environment",
    "get_tool",
    "get_toolset",
    "load_config",
    "register_environment",
    "register_tool",
    "register_toolset",
    "run_tool_calls",
    "tool",
    "tools",
    "toolsets",
]

_MODULES = {
    "config": ("Config", "load_config"),
    "environment": ("Environment",),
    "errors": ("ConfigError", "RolloutFailure", "ToolError", "UserError"),
    "registry": (
        *("environments", "get_environment", "register_environment"),
        *("tools", "get_tool", "register_tool", "toolsets", "get_toolset", "register_toolset"),
    ),
    "tool": ("Tool", "ToolEnvironment", "Toolset", "run_tool_calls", "tool"),
    "types": (
        *("Failure", "Group", "Message", "SamplingParams", "Step", "StepInfo", "StopReason"),
        *("Task", "ToolCall", "ToolResult", "Trajectory", "Turn"),
    ),
}
_HOME = {name: f"agent_rl.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agent_rl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """`agent_rl.tool` is the decorator, also after Python has imported the module of that name and wants to set it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "tool" and isinstance(value, ModuleType):
            value = value.tool
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
