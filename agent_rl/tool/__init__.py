"""Tools: typed functions that a model may call, the state that they share, and how the calls of a message are run.

`definition` makes a `Tool` of a function, `arguments` its JSON schema; `calls` runs calls under their declared limits;
`toolset` is state for the length of an episode. `services` is what a run lends to the tools of its episodes: a
tokenizer's measure, a `cache`, connections that stay open. Knows nothing of chat templates or rewards.
"""

from agent_rl.tool.calls import run_tool_calls
from agent_rl.tool.definition import Effects, Tool, tool, tool_from_schema
from agent_rl.tool.services import hold, hold_shared, share
from agent_rl.tool.toolset import ToolEnvironment, Toolset

__all__ = [
    "Effects",
    "Tool",
    "ToolEnvironment",
    "Toolset",
    "hold",
    "hold_shared",
    "run_tool_calls",
    "share",
    "tool",
    "tool_from_schema",
]
