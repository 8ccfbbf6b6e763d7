"""What a run lends to the tools of its episodes: the measure of its tokenizer, a cache, and contexts that stay open.

Tools run deep inside environments, which know nothing of the run; so the run's loan is a context variable, set once
around it and inherited by every task. Without a run there is no cache, and a token is taken for four bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio

from agent_rl.concurrency import Held, Keeper
from agent_rl.errors import UserError
from agent_rl.tool.cache import SIBLINGS, ToolCache

if TYPE_CHECKING:
    from agent_rl.tool.config import ToolsConfig
    from agent_rl.tool.definition import Tool

T = TypeVar("T")

TokenEnds: TypeAlias = Callable[[str, int, int], tuple[int, int]]
"""`ends(text, head, tail)`: where the first `head` tokens end and the last `tail` begin, in characters; the former is
not less than the latter when the text has no more tokens than that. Never inside a character."""

_BYTES_PER_TOKEN = 4
_CLOSE_TIMEOUT_S = 120.0  # for all that a run holds open


def byte_ends(text: str, head: int, tail: int) -> tuple[int, int]:
    """`TokenEnds` for want of a tokenizer: four bytes are a token."""
    data = text.encode(errors="replace")
    if len(data) <= _BYTES_PER_TOKEN * (head + tail):
        return len(text), len(text)
    before = data[: _BYTES_PER_TOKEN * head].decode(errors="ignore")
    after = data[len(data) - _BYTES_PER_TOKEN * tail :].decode(errors="ignore")
    return len(before), len(text) - len(after)


@dataclass(frozen=True, slots=True)
class ToolServices:
    """The loan. `max_output_tokens` bounds every output, whatever its tool declares."""

    ends: TokenEnds = byte_ends
    max_output_tokens: int | None = None
    cache: ToolCache | None = None
    keeper: Keeper | None = None

    def metrics(self) -> dict[str, float]:
        """Of the cache, since the last call."""
        found = self.cache.metrics() if self.cache else {}
        return {f"tools/{name}": value for name, value in found.items()}


SERVICES: ContextVar[ToolServices] = ContextVar("agent_rl tool services", default=ToolServices())  # noqa: B039  # frozen


@asynccontextmanager
async def tool_services(config: ToolsConfig, ends: TokenEnds | None = None) -> AsyncGenerator[ToolServices, None]:
    """Lend to all tools that run inside the block, in whatever task.

    What they hold open is closed after it: when the run is cancelled too, not before its episodes have closed.
    """
    cache = ToolCache(config.cache, config.cache_mb << 20) if config.cache != "off" else None
    escaped: Exception | None = None
    async with anyio.create_task_group() as tasks:
        keeper = Keeper(tasks)
        services = ToolServices(ends or byte_ends, config.max_output_tokens, cache, keeper)
        try:
            with lend(services):
                yield services
        except Exception as error:  # noqa: BLE001  # out of the task group as itself, not as a group
            escaped = error
        finally:
            await keeper.close(_CLOSE_TIMEOUT_S)
    if escaped is not None:
        raise escaped


@contextmanager
def lend(services: ToolServices) -> Generator[None, None, None]:
    """Lend the services that another task has opened to the tools that run inside the block."""
    token = SERVICES.set(services)
    try:
        yield
    finally:
        SERVICES.reset(token)


@contextmanager
def siblings_of(key: Hashable) -> Generator[None, None, None]:
    """Episodes inside the block start in the same state, so that equal state keys mean equal states."""
    token = SIBLINGS.set(key)
    try:
        yield
    finally:
        SIBLINGS.reset(token)


async def hold(opened: AbstractAsyncContextManager[Sequence[Tool]]) -> HeldTools:
    """Enter the context manager of some tools for one episode: in `reset`, `self.toolsets = (await hold(...),)`.

    It is left by the toolset's `close`, or with the run. Raises `UserError` outside of a run.
    """
    return HeldTools(await _keeper().open(opened))


async def hold_shared(key: Hashable, open: Callable[[], AbstractAsyncContextManager[Sequence[Tool]]]) -> SharedTools:
    """Like `hold`, but entered once for all episodes of the run: for tools without state."""
    return SharedTools(await share(key, open))


async def share(key: Hashable, open: Callable[[], AbstractAsyncContextManager[T]]) -> T:
    """What `open()` gives, entered by the first that asks for `key` and left with the run: for what has no state.

    Raises `UserError` outside of a run.
    """
    return await _keeper().shared(key, open)


class HeldTools:
    """Tools whose context manager is open; a `Toolset` in all but name."""

    def __init__(self, held: Held[Sequence[Tool]]) -> None:
        self._held = held

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools."""
        return self._held.value

    async def close(self) -> None:
        """Leave the context manager."""
        await self._held.close()


class SharedTools:
    """Tools that the run holds open for all episodes; a `Toolset` in all but name."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = tools

    async def close(self) -> None:
        """They stay open for the other episodes."""


def _keeper() -> Keeper:
    keeper = SERVICES.get().keeper
    if keeper is None:
        raise UserError(
            "Nothing can be held open here: this is no training or evaluation. Use `async with tool_services(...)` "
            "around it, or the tools' own `async with`."
        )
    return keeper
