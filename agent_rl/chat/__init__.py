"""Messages to tokens and back: chat templates, tool-call parsers, the token row of one conversation."""

from agent_rl.chat.codec import ChatCodec
from agent_rl.chat.conversation import Conversation, Response
from agent_rl.chat.parsers import ToolParser, get_tool_parser, tool_parser

__all__ = ["ChatCodec", "Conversation", "Response", "ToolParser", "get_tool_parser", "tool_parser"]
