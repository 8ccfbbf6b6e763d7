"""Tool-call parsers by name: from the text that a model wrote to tool calls. One format per file.

Every parser is linear in the text and never raises: whatever the model got wrong becomes a `ToolCall` whose `error`
tells it what to write instead, and leaves the other calls alone. Names are vLLM's. A parser knows the text format only:
not which tools exist, and nothing of tokens. Formats without JSON (`qwen3_coder`, `glm`, `xml`) give every value as
text: what it means is decided by the schema of the tool (see `agent_rl.tool`).
"""

from agent_rl.chat.parsers.base import (
    ToolParser,
    ToolParserName,
    get_tool_parser,
    split_reasoning,
    tool_parser,
    tool_parsers,
)
from agent_rl.chat.parsers.deepseek import parse_deepseek
from agent_rl.chat.parsers.glm import parse_glm
from agent_rl.chat.parsers.gpt_oss import parse_gpt_oss
from agent_rl.chat.parsers.hermes import parse_hermes
from agent_rl.chat.parsers.kimi import parse_kimi
from agent_rl.chat.parsers.llama3_json import parse_llama3_json
from agent_rl.chat.parsers.mistral import parse_mistral
from agent_rl.chat.parsers.qwen3_coder import parse_qwen3_coder
from agent_rl.chat.parsers.react import parse_react
from agent_rl.chat.parsers.xml import parse_xml, xml_parser

__all__ = [
    "ToolParser",
    "ToolParserName",
    "get_tool_parser",
    "parse_deepseek",
    "parse_glm",
    "parse_gpt_oss",
    "parse_hermes",
    "parse_kimi",
    "parse_llama3_json",
    "parse_mistral",
    "parse_qwen3_coder",
    "parse_react",
    "parse_xml",
    "split_reasoning",
    "tool_parser",
    "tool_parsers",
    "xml_parser",
]
