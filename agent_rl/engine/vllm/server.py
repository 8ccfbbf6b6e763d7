"""A client of `vllm serve`, one server or several: token ids over HTTP, episodes that stay where their cache is."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread
import httpx

from agent_rl.concurrency import collect, shielded
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.delta.push import Pusher
from agent_rl.engine.replicas import Replica, Replicas
from agent_rl.engine.vllm.requests import LOGPROBS_MODE, Response, end, sampling_fields
from agent_rl.engine.vllm.weights import Salts, WeightFiles, newer
from agent_rl.errors import ConfigError, ProviderFailure
from agent_rl.types import Generation

if TYPE_CHECKING:
    import torch

START_COMMAND = f"VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode {LOGPROBS_MODE}"
_ID_PREFIX = "generate-tokens-"  # what the server puts before the id of a request
_STAGE = "generation"


class VLLMServerEngine:
    """`async with VLLMServerEngine(["http://gpu-1:8000", "http://gpu-2:8000"]) as engine:`, each serving one model.

    Start each server with `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out
    --logprobs-mode processed_logprobs`; the servers are data-parallel replicas. An episode stays at the server of its
    first turn, which has its cache; when that server dies, its episodes move. Weight updates freeze what runs, so that
    partial responses survive. `weights_folder` must be seen by the servers under the same path (shared memory, by
    default: servers on this machine). Where they see no common folder, `receivers` are the URLs of `agent-rl serve
    weights` beside each server, in the same order, with the token `token`: only what changed is sent to them. A server
    that misses an update is left out until it gets one.

    `request_timeout_s` is how long one response may take; `update_timeout_s` is for one update of the weights.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        *,
        weights_folder: Path | None = None,
        receivers: Sequence[str] = (),
        token: str = "",
        request_timeout_s: float = 600.0,
        update_timeout_s: float = 600.0,
    ) -> None:
        if not base_urls:
            raise ConfigError("VLLMServerEngine needs the URL of at least one server.")
        for url in base_urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"The server {url!r} must start with http:// or https://.")
        if receivers and len(receivers) != len(base_urls):
            raise ConfigError(f"{len(base_urls)} servers need as many receivers of weights, not {len(receivers)}.")
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(request_timeout_s, connect=10.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
        )
        urls = [url.rstrip("/").removesuffix("/v1") for url in base_urls]
        self._replicas = Replicas(urls)
        self._update_timeout_s = update_timeout_s
        self._files = WeightFiles(weights_folder)
        self._receivers = dict(zip(urls, receivers, strict=bool(receivers)))
        self._token = token
        self._dtype = ""
        self._pusher: Pusher | None = None
        self._running: dict[str, tuple[Replica, str]] = {}
        self._updating = anyio.Lock()
        self._adapter: tuple[str, int] | None = None  # name and version
        self._salts = Salts()
        self.max_context = 0
        self.weight_version = 0

    async def __aenter__(self) -> Self:
        """Check every server. Raises `ConfigError` for one that is absent or was started without what this needs."""
        await self._http.__aenter__()
        try:
            lengths = await collect([lambda replica=replica: self._inspect(replica) for replica in self._replicas.all])
        except BaseException:
            await self._http.__aexit__(None, None, None)
            raise
        self.max_context = min(lengths)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._files.remove()
        await self._http.__aexit__(exc_type, exc, tb)

    async def _inspect(self, replica: Replica) -> int:
        """The longest context of a server that can do what is needed of it."""
        try:
            models = await self._get(replica, "/v1/models")
            info = await self._get(replica, "/server_info", config_format="json")
            await self._post(replica, "/update_weight_version", {"new_version": str(self.weight_version)})
        except ProviderFailure as failure:
            raise ConfigError(f"{replica.name}: {failure} Start it with: {START_COMMAND}") from failure
        model = info["vllm_config"]["model_config"]
        mode, self._dtype = model["logprobs_mode"], str(model.get("dtype", "")).removeprefix("torch.")
        if mode != LOGPROBS_MODE:
            raise ConfigError(
                f"{replica.name} returns {mode}, which are not those of its samples. Start it with: {START_COMMAND}"
            )
        return int(models["data"][0]["max_model_len"])

    # --- sampling ---------------------------------------------------------------------------------------------------

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`. A server that cannot be reached hands over to the next one.

        Raises `ProviderFailure` (kind `connection`, `timeout`, `server_error`, `refused` or `malformed`), `ConfigError`
        for a second request of a session that is still running.
        """
        session = request.session
        if session in self._running:
            raise ConfigError(f"Session {session!r} is already generating; parallel samples need own sessions.")
        body: dict[str, Any] = {
            "token_ids": request.prompt_ids_T.tolist(),
            "sampling_params": sampling_fields(request, self.max_context),
            "request_id": uuid.uuid4().hex,
            "cache_salt": self._salts.of(session),
        }
        adapter_version = None
        if self._adapter is not None:
            body["model"], adapter_version = self._adapter
        while True:
            replica = self._replicas.of(session)
            self._running[session] = replica, body["request_id"]
            try:
                answer = await self._post(replica, "/inference/v1/generate", body)
            except ProviderFailure as failure:
                if failure.kind not in ("connection", "server_error") or await self._alive(replica):
                    raise
                self._replicas.lose(replica)
            else:
                return self._generation(answer, adapter_version)
            finally:
                del self._running[session]

    async def _alive(self, replica: Replica) -> bool:
        """Whether one request failed, or the whole server: its front may outlive its engine."""
        try:
            await self._get(replica, "/health")
        except ProviderFailure:
            return False
        return True

    def _generation(self, answer: Any, adapter_version: int | None) -> Generation:
        """The server knows the version of its own weights, and nothing of an adapter's."""
        try:
            (choice,) = answer["choices"]
            content = choice["logprobs"]["content"] if choice["logprobs"] else []
            response = Response(self.weight_version)
            version = self.weight_version if adapter_version is None else adapter_version
            response.add(choice["token_ids"] or [], [entry["logprob"] for entry in content or []], version)
            if adapter_version is None:
                response.stamp([(s["version"], s["start"], s["end"]) for s in choice.get("weight_versions") or []])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = json.dumps(answer)[:300]
            raise ProviderFailure(f"vLLM answered {text}", kind="malformed", stage=_STAGE) from error
        return response.generation(choice["finish_reason"])

    async def abort(self, session: str) -> None:
        """See `Engine.abort`."""

        async def abort(running: tuple[Replica, str]) -> None:
            replica, request_id = running
            await self._post(replica, "/inference/v1/abort_requests", {"request_ids": [_ID_PREFIX + request_id]})

        await end(self._running, session, abort)

    async def release(self, session: str) -> None:
        """See `Engine.release`. vLLM evicts what is not used; only the session's place is given up."""
        await self.abort(session)
        self._replicas.forget(session)
        self._salts.forget(session)

    async def encode(self, text: str) -> dict[str, list[int]]:
        """Ids of `text` by each server's tokenizer, by URL: to compare with the learner's."""
        body = {"prompt": text, "add_special_tokens": False}
        return {
            replica.name: (await self._post(replica, "/tokenize", body))["tokens"] for replica in self._replicas.all
        }

    # --- weights ----------------------------------------------------------------------------------------------------

    async def update_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """See `Engine.update_weights`. Names are those of the checkpoint (`state_dict` of the transformers model).

        Raises `ProviderFailure` when no server took them.
        """
        async with self._updating:
            newer(version, self.weight_version)
            find_folder = await self._hand_over(weights) if weights else None

            async def update(replica: Replica) -> None:
                folder = await find_folder(replica) if find_folder is not None else None
                async with self._frozen(replica):
                    if folder is not None:
                        kwargs = {"weights_path": str(folder)}
                        await self._post(replica, "/collective_rpc", {"method": "reload_weights", "kwargs": kwargs})
                    await self._post(replica, "/update_weight_version", {"new_version": str(version)})

            await self._everywhere(update, complete=bool(weights))
            if weights:
                self._adapter = None
                self._salts.renew()
            self.weight_version = version

    async def _hand_over(self, weights: Mapping[str, torch.Tensor]) -> Callable[[Replica], Awaitable[Path]]:
        """How each server gets to a folder with the weights; sampling goes on meanwhile."""
        if not self._receivers:
            shared = await anyio.to_thread.run_sync(self._files.write, weights)

            async def find_shared(replica: Replica) -> Path:
                return shared

            return find_shared
        pusher = self._pusher
        if pusher is None:
            pusher = self._pusher = Pusher(self._http, self._files, self._dtype, self._token)
        await pusher.advance(weights)
        return lambda replica: pusher.push(self._receivers[replica.name])

    async def load_adapter(self, folder: Path, version: int) -> None:
        """Sample with the LoRA adapter in `folder` (peft's format, seen by the servers) from the next request on.

        Needs servers with `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`.
        """
        async with self._updating:
            newer(version, self.weight_version)
            name = f"version-{version}"

            async def load(replica: Replica) -> None:
                await self._post(replica, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

            await self._everywhere(load, complete=False)
            self._adapter, self.weight_version = (name, version), version
            self._salts.renew()

    async def _everywhere(self, update: Callable[[Replica], Awaitable[None]], *, complete: bool) -> None:
        """Update all servers; those that fail are lost.

        A `complete` update reaches the lost ones too, and makes them useful again: they may have been restarted since.
        """
        replicas = [replica for replica in self._replicas.all if complete or not replica.lost]
        if not replicas:
            raise ProviderFailure("No server can be reached.", kind="connection", stage="update")

        async def one(replica: Replica) -> ProviderFailure | None:
            try:
                with anyio.fail_after(self._update_timeout_s):
                    await update(replica)
            except ProviderFailure as failure:
                self._replicas.lose(replica)
                return failure
            except TimeoutError:
                self._replicas.lose(replica)
                return ProviderFailure(f"{replica.name} took too long to update", kind="timeout", stage="update")
            self._replicas.find(replica)
            return None

        failures = await collect([lambda replica=replica: one(replica) for replica in replicas])
        lost = [failure for failure in failures if failure is not None]
        if len(lost) == len(failures):
            raise lost[0]

    @asynccontextmanager
    async def _frozen(self, replica: Replica) -> AsyncGenerator[None, None]:
        """Nothing is sampled inside; what runs goes on afterwards, also when the block fails."""
        await self._post(replica, "/pause?mode=keep&clear_cache=false", None)
        try:
            yield
        finally:
            async with shielded(self._update_timeout_s):
                await self._post(replica, "/resume", None)

    # --- HTTP -------------------------------------------------------------------------------------------------------

    async def _get(self, replica: Replica, path: str, **query: str) -> Any:
        return await self._send(self._http.build_request("GET", replica.name + path, params=query or None))

    async def _post(self, replica: Replica, path: str, body: Any) -> Any:
        return await self._send(self._http.build_request("POST", replica.name + path, json=body))

    async def _send(self, request: httpx.Request) -> Any:
        """The JSON of the answer, `None` if it has none. Raises `ProviderFailure`."""
        where = request.url.path
        try:
            answer = await self._http.send(request)
        except httpx.TimeoutException as error:
            connecting = isinstance(error, httpx.ConnectTimeout)
            kind = "connection" if connecting else "timeout"
            raise ProviderFailure(f"{where} timed out.", kind=kind, stage=_STAGE) from error
        except httpx.TransportError as error:
            raise ProviderFailure(f"{where}: {error!r}.", kind="connection", stage=_STAGE) from error
        if answer.is_error:
            kind = "server_error" if answer.is_server_error else "refused"
            message = f"{where} answered {answer.status_code}: {answer.text[:300]}."
            raise ProviderFailure(message, kind=kind, stage=_STAGE, retryable=answer.is_server_error)
        try:
            return answer.json()
        except ValueError:  # some commands are confirmed by a word, or by nothing
            return None
