"""Tools with state of their own for the length of an episode, and environments that offer tools.

Knows which tools a class offers. How their calls are run is in `calls`.
"""

from __future__ import annotations

import abc
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from agent_rl.environment import Environment
from agent_rl.errors import UserError
from agent_rl.tool.calls import run_tool_calls
from agent_rl.tool.definition import Tool
from agent_rl.types import Message, Step, StepInfo


class _ToolMethods:
    """Finds the `@tool` methods of a class and binds them to an instance."""

    _tool_names: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        attributes = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
        offered = {name: value for name, value in attributes.items() if isinstance(value, Tool)}
        if len({tool.name for tool in offered.values()}) < len(offered):
            raise UserError(f"{cls.__name__} offers two tools of one name: {[tool.name for tool in offered.values()]}.")
        cls._tool_names = tuple(offered)

    @classmethod
    def offered(cls) -> Sequence[Tool]:
        """The `@tool` methods in order of definition, not bound: for their definitions."""
        return tuple([getattr(cls, name) for name in cls._tool_names])

    @property
    def tools(self) -> Sequence[Tool]:
        """The `@tool` methods in order of definition, bound to this instance."""
        return tuple([getattr(self, name) for name in self._tool_names])


class Toolset(_ToolMethods):
    """Tools that share state: the `@tool` methods of a subclass. One instance serves one episode and is then closed."""

    async def close(self) -> None:
        """Release everything; called under cancellation too, and must be idempotent."""

    def state_key(self) -> Hashable | None:
        """A key of all that read-only tools' results depend on, equal in equal states of siblings; `None`: unknown."""
        return None


class OffersTools(Protocol):
    """What an environment takes as a toolset: a `Toolset`, or what `hold` returns."""

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...


class ToolEnvironment(_ToolMethods, Environment):
    """An environment that offers tools: every `@tool` method of its class, then those of its `toolsets`.

    `reset` (or the constructor) sets `self.toolsets`; `close` closes them, so that one that overrides it must call it.
    A message with tool calls gets their results; a message without is the model's answer and goes to `answer`, and so
    is the `submitted` text of a toolset that has one (`submit`).
    """

    toolsets: Sequence[OffersTools] = ()

    @property
    def tools(self) -> Sequence[Tool]:
        """Its own `@tool` methods in order of definition, bound to this episode, then the toolsets' tools."""
        own = super().tools
        return (*own, *(tool for toolset in self.toolsets for tool in toolset.tools)) if self.toolsets else own

    async def step(self, action: Message) -> Step:
        """Run the tool calls of the message, or pass it to `answer`."""
        if not action.tool_calls:
            return await self.answer(action)
        results = await run_tool_calls(self.tools, action.tool_calls)
        messages = tuple([Message("tool", result.content, tool_call_id=result.call.id) for result in results])
        for toolset in self.toolsets:
            if (submitted := getattr(toolset, "submitted", None)) is not None:
                step = await self.answer(Message("assistant", submitted))
                return step._replace(messages=messages + step.messages, info=replace(step.info, tool_results=results))
        return Step(messages, info=StepInfo(tool_results=results))

    async def close(self) -> None:
        """Close the toolsets, the last one first; one that fails does not keep the others open."""
        toolsets, self.toolsets = list(self.toolsets), ()
        failures: list[Exception] = []
        while toolsets:
            try:
                await toolsets.pop().close()
            except Exception as error:  # noqa: BLE001  # raised below
                failures.append(error)
        if failures:
            raise ExceptionGroup("closing toolsets failed", failures)

    @abc.abstractmethod
    async def answer(self, action: Message) -> Step:
        """Judge a message without tool calls (usually the end of the episode)."""
