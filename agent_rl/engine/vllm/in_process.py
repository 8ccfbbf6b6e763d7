"""vLLM's `AsyncLLM` as an engine: the fastest way to sample on GPUs of this machine."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread

from agent_rl.concurrency import shielded
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.vllm.requests import LOGPROBS_MODE, Response, end, sampling_fields
from agent_rl.engine.vllm.weights import Salts, WeightFiles, newer
from agent_rl.errors import ConfigError, ProviderFailure
from agent_rl.types import Generation

if TYPE_CHECKING:
    import torch

_RESUME_TIMEOUT_S = 60.0


class VLLMEngine:
    """Serves the model folder or hub id `model`: `async with VLLMEngine(model, max_context=32768) as engine:`.

    `options` are vLLM's engine arguments (`tensor_parallel_size`, `gpu_memory_utilization`, `dtype`,
    `enforce_eager`, ...). A weight update freezes what runs, swaps, and goes on: partial responses survive, with the
    keys and values of the older weights, and every token carries its own version. `weights_folder` is where weights
    pass through (shared memory by default). vLLM's prefix cache keeps what an episode has in common with its turns
    and siblings; an episode that begins after an update never meets what older weights left there. With top-p or top-k
    the log-probs are those of the truncated distribution: do not train on such samples.
    Needs `agent-rl[vllm]`; runs on asyncio. Raises `ConfigError` where vLLM is missing.
    """

    def __init__(
        self, model: str, *, max_context: int | None = None, weights_folder: Path | None = None, **options: Any
    ) -> None:
        self._vllm = _import_vllm()
        self._options = {
            "model": model,
            "max_model_len": max_context,
            "logprobs_mode": LOGPROBS_MODE,
            "enable_prefix_caching": True,
            "enable_log_requests": False,
        } | options
        self._files = WeightFiles(weights_folder)
        self._llm: Any = None
        self._running: dict[str, str] = {}
        self._updating = anyio.Lock()
        self._adapter: tuple[Any, int] | None = None  # and its version
        self._salts = Salts()
        self.weight_version = 0

    async def __aenter__(self) -> Self:
        """Load the model, which takes vLLM seconds to minutes."""
        arguments = self._vllm.AsyncEngineArgs(**self._options)
        self._llm = self._vllm.AsyncLLM.from_engine_args(arguments)
        await self._llm.update_weight_version(str(self.weight_version))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        llm, self._llm = self._llm, None
        llm.shutdown()
        self._files.remove()

    @property
    def max_context(self) -> int:
        """Tokens of prompt and response together."""
        return int(self._llm.model_config.max_model_len)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the model's embedding."""
        return int(self._llm.model_config.get_vocab_size())

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`. Raises `ConfigError` for a second request of a session that is still running."""
        session = request.session
        if session in self._running:
            raise ConfigError(f"Session {session!r} is already generating; parallel samples need own sessions.")
        params = self._vllm.SamplingParams(
            **sampling_fields(request, self.max_context), output_kind=self._vllm.RequestOutputKind.DELTA
        )
        self._running[session] = request_id = uuid.uuid4().hex
        response, finish_reason = Response(self.weight_version), None
        prompt = {"prompt_token_ids": request.prompt_ids_T.tolist(), "cache_salt": self._salts.of(session)}
        adapter, adapter_version = self._adapter or (None, None)
        try:
            stream = self._llm.generate(prompt, params, request_id, lora_request=adapter)
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    (sampled,) = output.outputs
                    ids = list(sampled.token_ids)
                    logprobs = [entry[id].logprob for id, entry in zip(ids, sampled.logprobs or (), strict=True)]
                    if adapter_version is not None:
                        response.add(ids, logprobs, adapter_version)
                    else:
                        response.add(ids, logprobs, self.weight_version)
                        response.stamp([(span.version, span.start, span.end) for span in sampled.weight_versions or ()])
                    finish_reason = sampled.finish_reason
        except self._vllm.EngineDeadError as error:
            raise ProviderFailure("vLLM's engine died", kind="crash", stage="generation") from error
        finally:
            del self._running[session]
        return response.generation(finish_reason)

    async def abort(self, session: str) -> None:
        """See `Engine.abort`."""
        await end(self._running, session, self._llm.abort)

    async def release(self, session: str) -> None:
        """See `Engine.release`. vLLM evicts what is not used; there is nothing to free by hand."""
        await self.abort(session)
        self._salts.forget(session)

    async def update_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """See `Engine.update_weights`. Names are those of the checkpoint (`state_dict` of the transformers model)."""
        async with self._updating:
            newer(version, self.weight_version)
            folder = await anyio.to_thread.run_sync(self._files.write, weights) if weights else None
            async with self._frozen():
                if folder is not None:
                    await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
                    self._adapter = None
                    self._salts.renew()
                await self._llm.update_weight_version(str(version))
                self.weight_version = version

    async def load_adapter(self, folder: Path, version: int) -> None:
        """Sample with the LoRA adapter in `folder` (peft's format) from the next request on.

        Needs `enable_lora=True`. Far fewer bytes than `update_weights`, and nothing pauses: requests that run finish
        with the former weights, and say so. vLLM evicts adapters when it needs the room.
        """
        async with self._updating:
            newer(version, self.weight_version)
            adapter = self._vllm.LoRARequest(f"version-{version}", version + 1, str(folder))
            await self._llm.add_lora(adapter)
            self._adapter = adapter, version
            self._salts.renew()
            self.weight_version = version

    @asynccontextmanager
    async def _frozen(self) -> AsyncGenerator[None, None]:
        """Nothing is sampled inside; what runs goes on afterwards, also when the block fails."""
        await self._llm.pause_generation(mode="keep", clear_cache=False)
        try:
            yield
        finally:
            async with shielded(_RESUME_TIMEOUT_S):
                await self._llm.resume_generation()


class _Vllm:
    """The names that this module takes from vLLM, which ships no types."""

    def __init__(self) -> None:
        load = importlib.import_module
        self.AsyncEngineArgs: Any = load("vllm.engine.arg_utils").AsyncEngineArgs
        self.AsyncLLM: Any = load("vllm.v1.engine.async_llm").AsyncLLM
        self.EngineDeadError: Any = load("vllm.v1.engine.exceptions").EngineDeadError
        self.LoRARequest: Any = load("vllm.lora.request").LoRARequest
        self.SamplingParams: Any = load("vllm.sampling_params").SamplingParams
        self.RequestOutputKind: Any = load("vllm.sampling_params").RequestOutputKind


def _import_vllm() -> _Vllm:
    try:
        return _Vllm()
    except ImportError as error:
        raise ConfigError(f"vLLM cannot be imported ({error}): pip install 'agent-rl[vllm]'.") from error
