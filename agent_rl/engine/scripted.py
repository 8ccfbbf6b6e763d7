"""An engine without a model: a function says what is sampled. For tests, examples and measurements of overhead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel
import numpy as np

from agent_rl.engine.base import GenerationRequest
from agent_rl.errors import ConfigError
from agent_rl.types import FinishReason, Generation, SamplingParams

if TYPE_CHECKING:
    import torch


class ScriptedEngine:
    """`respond(request)` gives the token ids, `logprobs(request, ids)` their log-probs (0 when absent).

    The response is cut behind the first stop token (`STOP`) or at `max_tokens` (`LENGTH`); a script that ends by
    itself counts as `STOP`. Each response takes `latency_s`, during which its tokens come out evenly: `abort` returns
    those that came so far. Stop strings are not looked at: there is no text here.
    """

    def __init__(
        self,
        respond: Callable[[GenerationRequest], Sequence[int]],
        *,
        latency_s: float = 0.0,
        logprobs: Callable[[GenerationRequest, Sequence[int]], Sequence[float]] | None = None,
    ) -> None:
        self.requests = 0
        self.sampled_tokens = 0
        self.weight_version = 0
        self._respond = respond
        self._latency_s = latency_s
        self._logprobs = logprobs
        self._sessions: set[str] = set()
        self._running: dict[str, anyio.Event] = {}

    @property
    def running_requests(self) -> int:
        """Requests whose latency is passing."""
        return len(self._running)

    @property
    def resident_sessions(self) -> int:
        """Sessions that were used and not released yet."""
        return len(self._sessions)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for aborted in self._running.values():
            aborted.set()

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`. Raises `ConfigError` for a second request of a session that is still running."""
        name = request.session
        if name in self._running:
            raise ConfigError(f"Session {name!r} is already generating; parallel samples need own sessions.")
        self.requests += 1
        self._sessions.add(name)
        ids, finish = _cut(self._respond(request), request.sampling)
        try:
            await anyio.lowlevel.checkpoint()
            came = await self._wait(name) if self._latency_s else 1.0
        except BaseException:
            self._sessions.discard(name)
            raise
        if came < 1.0:
            ids, finish = ids[: int(came * len(ids))], FinishReason.ABORT
        self.sampled_tokens += len(ids)
        return self._generation(request, ids, finish)

    async def _wait(self, name: str) -> float:
        """Let the latency pass. Returns the part of it that had passed when the request was aborted, else 1."""
        aborted = self._running[name] = anyio.Event()
        started = anyio.current_time()
        try:
            with anyio.move_on_after(self._latency_s):
                await aborted.wait()
                return min((anyio.current_time() - started) / self._latency_s, 0.999)
            return 1.0
        finally:
            del self._running[name]

    def _generation(self, request: GenerationRequest, ids: Sequence[int], finish: FinishReason) -> Generation:
        logprobs = self._logprobs(request, ids) if self._logprobs else np.zeros(len(ids))
        return Generation(
            token_ids_R=np.array(ids, dtype=np.int32),
            logprobs_R=np.asarray(logprobs, dtype=np.float32),
            weight_versions_R=np.full(len(ids), self.weight_version, dtype=np.int32),
            finish_reason=finish,
        )

    async def abort(self, session: str) -> None:
        """See `Engine.abort`."""
        if session in self._running:
            self._running[session].set()

    async def release(self, session: str) -> None:
        """See `Engine.release`. A running request of the session is aborted first."""
        await self.abort(session)
        self._sessions.discard(session)

    async def update_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Only the version changes. Raises `ConfigError` for a version below the present one."""
        if version < self.weight_version:
            raise ConfigError(f"Weight version {version} is older than the engine's {self.weight_version}.")
        self.weight_version = version


def _cut(ids: Sequence[int], sampling: SamplingParams) -> tuple[Sequence[int], FinishReason]:
    """What of a script comes out under these limits, and why it ends there."""
    ends = [ids.index(stop) + 1 for stop in sampling.stop_token_ids if stop in ids]
    if ends and min(ends) <= sampling.max_tokens:
        return ids[: min(ends)], FinishReason.STOP
    if len(ids) >= sampling.max_tokens:
        return ids[: sampling.max_tokens], FinishReason.LENGTH
    return ids, FinishReason.STOP
