"""The asynchronous shell of the local engine: requests and commands in, finished responses out, one worker thread.

Knows the event loop and the thread; leaves what a step computes to the scheduler. The scheduler is touched either by
the worker thread or, while that rests, by nobody: every command goes through `_inbox` and runs between two steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import anyio
import anyio.to_thread

from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.local.forward import Forward, check_model
from agent_rl.engine.local.job import Job
from agent_rl.engine.local.scheduler import EngineStats, Scheduler
from agent_rl.errors import ConfigError, did_you_mean
from agent_rl.types import Generation

if TYPE_CHECKING:
    import torch
    from anyio.abc import TaskGroup
    from transformers import PreTrainedModel

_Action = Callable[[], list[Job] | None]  # run by the worker between two steps; returns the requests it ended
_FIRST_CAPACITY = 256  # tokens per row to begin with; doubles on demand


class Decoder(Protocol):
    """The part of a tokenizer that stop strings need."""

    def decode(self, token_ids: Any, /) -> Any:
        """The text of some token ids."""
        ...


class LocalEngine:
    """Continuous batching over `model`, any full-attention transformers causal LM, on the device it is on.

    At most `max_batch` requests run at once, each within `max_context` tokens (prompt and response); further requests
    wait in order. The cache has `max_batch` rows: a session keeps its row between turns until another session needs it.
    The cache holds `max_batch * capacity` tokens, where the capacity doubles up to `max_context` with the longest row.

    The engine uses the module itself, in eval mode. When a trainer updates the same module in place, call
    `update_weights({}, version)` after each step, and do not run the two at the same time. After a weight update
    running requests and kept sessions go on with the keys and values of the older weights.

    `deterministic` computes every token alone, in fixed shapes, so that a response is bit-identical whatever else
    runs; one token per forward costs about the batch size in speed (see `benchmarks/local_engine.py`).

    `tokenizer` is needed for requests with stop strings only. Raises `ModelError` or `ConfigError` for a model that
    cannot be served.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        max_batch: int,
        max_context: int,
        deterministic: bool = False,
        tokenizer: Decoder | None = None,
    ) -> None:
        check_model(model, max_context)
        self._model = model
        self._max_context = max_context
        self._decode = tokenizer.decode if tokenizer else None
        forward = Forward(model, max_batch, min(_FIRST_CAPACITY, max_context))
        self._scheduler = Scheduler(forward, max_batch, max_context, deterministic)
        self._inbox: deque[tuple[_Action, anyio.Event | None]] = deque()
        self._running: set[str] = set()
        self._open: set[anyio.Event] = set()
        self._wake = anyio.Event()
        self._closed = True
        self._failure: BaseException | None = None
        self._tasks: TaskGroup
        self._thread = anyio.CapacityLimiter(1)

    @property
    def weight_version(self) -> int:
        """Version of the weights that the next token is sampled with."""
        return self._scheduler.version

    @property
    def stats(self) -> EngineStats:
        """A copy of the counters."""
        return replace(self._scheduler.stats)

    @property
    def running_requests(self) -> int:
        """Requests that run or wait."""
        return self._scheduler.running

    @property
    def resident_sessions(self) -> int:
        """Sessions that hold a row of the cache, busy or idle."""
        return len(self._scheduler.slots.sessions)

    async def __aenter__(self) -> Self:
        self._wake = anyio.Event()
        self._closed, self._failure = False, None
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._serve)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        self._closed = True  # ends the worker's loop, which cancellation does not reach
        self._tasks.cancel_scope.cancel()
        try:
            return await self._tasks.__aexit__(exc_type, exc, tb)
        except BaseExceptionGroup as group:
            # A failed step is why everything else ended. Any single error leaves as itself, not as a group.
            failed = isinstance(self._failure, Exception)
            first, *others = [self._failure] if failed else group.exceptions
            if first is None or others:
                raise
            raise first from first.__cause__

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`. Raises `ConfigError` for a request that cannot be served as it is."""
        job = self._job(request)
        name = request.session
        self._running.add(name)
        try:
            self._send(lambda: self._scheduler.submit(job))
            await self._wait(job.done)
        except BaseException:  # cancellation: nobody waits for this response any more
            self._send(lambda: self._scheduler.release(name))
            raise
        finally:
            self._running.discard(name)
        if job.finish is None:
            raise RuntimeError("the engine stopped while a request was running") from self._failure
        return job.generation()

    async def abort(self, session: str) -> None:
        """See `Engine.abort`. The session's cache stays."""
        await self._command(lambda: self._scheduler.abort(session))

    async def release(self, session: str) -> None:
        """See `Engine.release`. A running request of the session is aborted first."""
        await self._command(lambda: self._scheduler.release(session))

    async def update_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """See `Engine.update_weights`. Names are those of the model's `state_dict`, of which some may be missing.

        Raises `ConfigError` for an unknown name, a wrong shape or a version below the present one.
        """
        if version < self.weight_version:
            raise ConfigError(f"Weight version {version} is older than the engine's {self.weight_version}.")
        targets = self._model.state_dict(keep_vars=True)
        for name, tensor in weights.items():
            if name not in targets:
                raise ConfigError(f"The engine's model has no weight {name!r}.{did_you_mean(name, targets)}")
            if tensor.shape != targets[name].shape:
                raise ConfigError(f"{name} has shape {list(tensor.shape)}, expected {list(targets[name].shape)}.")
        await self._command(lambda: self._scheduler.update_weights(targets, weights, version))
        if self._failure is not None:
            raise RuntimeError("the engine stopped during a weight update") from self._failure

    def _job(self, request: GenerationRequest) -> Job:
        """Check the request: whatever it asks for, it must be possible to run it to its end."""
        if self._closed:
            raise RuntimeError("the engine is not running: use it as `async with engine:`") from self._failure
        prompt, sampling = len(request.prompt_ids_T), request.sampling
        room = self._max_context - prompt
        if prompt == 0 or sampling.max_tokens < 1:
            raise ConfigError("A generation needs a prompt of at least one token and max_tokens of at least 1.")
        if room < 1:
            raise ConfigError(f"The prompt has {prompt} tokens, but the engine's max_context is {self._max_context}.")
        if sampling.stop and self._decode is None:
            raise ConfigError("Stop strings need the text: pass tokenizer=... to LocalEngine, or use stop_token_ids.")
        if request.session in self._running:
            raise ConfigError(f"Session {request.session!r} is already generating; parallel samples need own sessions.")
        return Job(request, min(sampling.max_tokens, room), self._decode)

    # --- between the event loop and the worker thread ---------------------------------------------------------------

    async def _command(self, action: _Action) -> None:
        """Run `action` between two steps and wait until it is done; a stopped engine has nothing to command."""
        if not self._closed:
            done = anyio.Event()
            self._send(action, done)
            await self._wait(done)

    def _send(self, action: _Action, done: anyio.Event | None = None) -> None:
        self._inbox.append((action, done))
        self._wake.set()

    async def _wait(self, done: anyio.Event) -> None:
        """Wait for the worker, or for the engine to stop, whichever comes first."""
        self._open.add(done)
        try:
            await done.wait()
        finally:
            self._open.discard(done)

    async def _serve(self) -> None:
        """Keep the worker thread busy as long as there is work, and tell those who wait what has ended."""
        try:
            while True:
                await self._wake.wait()
                self._wake = anyio.Event()
                while self._inbox or self._scheduler.busy:
                    for event in await anyio.to_thread.run_sync(self._work, limiter=self._thread):
                        event.set()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._closed = True
            self._inbox.clear()
            self._scheduler.clear()
            for event in self._open:
                event.set()

    def _work(self) -> list[anyio.Event]:
        """In the worker thread: commands and steps, until somebody has to be told of something."""
        if self._model.training:
            self._model.eval()
        told: list[anyio.Event] = []
        while not told and not self._closed and (self._inbox or self._scheduler.busy):
            while self._inbox:
                action, done = self._inbox.popleft()
                told += [job.done for job in action() or ()]
                if done is not None:
                    told.append(done)
            if not told:
                told += [job.done for job in self._scheduler.step()]
        return told
