"""Results of tools, kept for who asks the same again: of pure tools for all, of read-only ones for siblings.

Concurrent equal calls become one (single flight): the first leads, the others wait for it. What did not succeed is not
kept: after an error every waiter calls for itself, after a cancelled leader one of the waiters leads. A cache belongs
to one event loop.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import anyio
from pydantic_core import PydanticSerializationError, to_json

if TYPE_CHECKING:
    from agent_rl.tool.arguments import Arguments
    from agent_rl.tool.definition import Tool

Outcome: TypeAlias = tuple[str | None, str]
"""The kind of the error, if any, and what the model reads."""

SIBLINGS: ContextVar[Hashable] = ContextVar("agent_rl episodes that start in one state", default=None)
_ENTRY_BYTES = 400  # what Python needs for an entry beside its texts


class CacheKey(NamedTuple):
    """Equal for calls that have the same result. `state` is `None` for pure tools."""

    origin: Hashable
    state: Hashable
    arguments: bytes


class _Entry(NamedTuple):
    content: str
    duration_s: float


@dataclass(slots=True)
class _Flight:
    """A call that runs for several. `entry` is its result; `failed` says that it ended with an error."""

    landed: anyio.Event = field(default_factory=anyio.Event)
    entry: _Entry | None = None
    failed: bool = False


@dataclass(slots=True)
class _Tally:
    calls: int = 0
    hits: int = 0
    saved_s: float = 0.0


class ToolCache:
    """Keeps up to `max_bytes`, the most recently used results. `kinds` says whose."""

    def __init__(self, kinds: Literal["pure", "read_only"], max_bytes: int) -> None:
        self._with_read_only = kinds == "read_only"
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[CacheKey, _Entry] = OrderedDict()
        self._flights: dict[CacheKey, _Flight] = {}
        self._tally = _Tally()

    def key(self, tool: Tool, arguments: Arguments) -> CacheKey | None:
        """`None` for what cannot be kept: mutating tools, unknown states, arguments that are no JSON."""
        if tool.effects == "mutating":
            return None
        state = None
        if tool.effects == "read_only" and (not self._with_read_only or (state := _state(tool)) is None):
            return None
        try:
            return CacheKey(tool.origin, state, to_json(arguments))
        except PydanticSerializationError:
            return None

    async def get(self, key: CacheKey, call: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """What is kept for `key`, else what `call` gives, or that of an equal call that runs already."""
        asked = time.perf_counter()
        self._tally.calls += 1
        while (entry := self._entries.get(key)) is None:
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, call)
            await flight.landed.wait()  # others wake before us: look again for what they have kept
            if flight.entry is not None:
                return self._hit(flight.entry, asked)
            if flight.failed and key not in self._entries:
                return await self._keep_success(key, call)
        self._entries.move_to_end(key)
        return self._hit(entry, asked)

    def metrics(self) -> dict[str, float]:
        """Since the last time: the share of cached tools' calls that were not run, and the seconds that this saved.

        Empty when there were no such calls.
        """
        tally, self._tally = self._tally, _Tally()
        if not tally.calls:
            return {}
        return {"cache_hit_rate": tally.hits / tally.calls, "cache_saved_s": tally.saved_s}

    @property
    def size_bytes(self) -> int:
        """What the kept results take, about."""
        return self._bytes

    def _hit(self, entry: _Entry, asked: float) -> Outcome:
        self._tally.hits += 1
        self._tally.saved_s += max(0.0, entry.duration_s - (time.perf_counter() - asked))
        return None, entry.content

    async def _lead(self, key: CacheKey, call: Callable[[], Awaitable[Outcome]]) -> Outcome:
        flight = self._flights[key] = _Flight()
        try:
            outcome = await self._keep_success(key, call, flight)
            flight.failed = flight.entry is None
            return outcome
        except Exception:
            flight.failed = True
            raise
        finally:  # cancelled: neither an entry nor failed, so that a waiter takes the lead
            del self._flights[key]
            flight.landed.set()

    async def _keep_success(
        self, key: CacheKey, call: Callable[[], Awaitable[Outcome]], flight: _Flight | None = None
    ) -> Outcome:
        began = time.perf_counter()
        error, content = await call()
        if error is None:
            entry = _Entry(content, time.perf_counter() - began)
            self._keep(key, entry)
            if flight is not None:
                flight.entry = entry
        return error, content

    def _keep(self, key: CacheKey, entry: _Entry) -> None:
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self._bytes -= _size(key, replaced)
        self._entries[key] = entry
        self._bytes += _size(key, entry)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._entries.popitem(last=False))


def _size(key: CacheKey, entry: _Entry) -> int:
    return _ENTRY_BYTES + len(key.arguments) + sys.getsizeof(entry.content)


def _state(tool: Tool) -> Hashable | None:
    """Whose state it is, and which: only siblings, which start in one state, compare their keys."""
    owner = getattr(tool.function, "__self__", None)
    siblings, state_key = SIBLINGS.get(), getattr(owner, "state_key", None)
    if siblings is None or state_key is None:
        return None
    state = state_key()
    return None if state is None else (siblings, type(owner), state)
