"""A client of any OpenAI-compatible chat endpoint: messages and tools in, one assistant message out.

Text level: the endpoint tells neither its token ids nor their log-probs, so this is no `Engine`, and what it answers
can be evaluated but never trained on. Knows HTTP, retries and whose fault a failure is; refuses to know episodes.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, cast

import anyio
import httpx

from agent_rl.chat.wire import Wire, WireError, message_from_wire
from agent_rl.errors import ConfigError, ProviderFailure
from agent_rl.retry_after import retry_after_s
from agent_rl.seeding import stream
from agent_rl.types import FinishReason, Message, SamplingParams, ToolCall, Usage

LimitField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]

_STAGE = "generation"
_RETRIED = {408, 409, 425, 429}  # and every 5xx
_FINISH = {"stop": FinishReason.STOP, "tool_calls": FinishReason.STOP, "length": FinishReason.LENGTH}
_ECHOED = ("role", "content", "tool_calls", "reasoning_content", "reasoning")
_LONGEST_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `echo` is the message as the endpoint wrote it, to send back in the next request.

    `usage` is None when the endpoint does not tell.
    """

    message: Message
    finish_reason: FinishReason
    echo: Wire
    usage: Usage | None = None


@dataclass(slots=True)
class ClientStats:
    """What all requests of a client came to."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class OpenAIClient:
    """`POST {base_url}/chat/completions`, shared by all episodes: `async with OpenAIClient(...) as client:`.

    The key is read from the environment variable `api_key_variable`; without one, requests carry none (local servers).
    At most `max_concurrency` requests run at once. Lost connections, malformed answers, 429 and 5xx are tried up to
    `max_attempts` times, after `Retry-After` when the server gives it, else after a delay that doubles.
    `request_timeout_s` is how long one attempt may be silent; the caller's own deadline bounds them all.
    `limit_field` is how the endpoint calls its limit of tokens, `extra` are further fields of every request.
    """

    def __init__(
        self,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        *,
        api_key_variable: str = "OPENAI_API_KEY",
        max_concurrency: int = 64,
        max_attempts: int = 6,
        retry_delay_s: float = 0.5,
        request_timeout_s: float = 300.0,
        limit_field: LimitField = "max_tokens",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"The base URL {base_url!r} must start with http:// or https://.")
        if max_attempts < 1 or max_concurrency < 1:
            raise ConfigError("max_attempts and max_concurrency must be at least 1.")
        self.model = model
        self.stats = ClientStats()
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._key_variable = api_key_variable
        key = os.environ.get(api_key_variable, "").strip()
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=request_timeout_s,
            limits=httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency),
        )
        self._slots = anyio.Semaphore(max_concurrency)
        self._max_attempts = max_attempts
        self._retry_delay_s = retry_delay_s
        self._limit_field = limit_field
        self._extra = dict(extra or {})

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._http.__aexit__(exc_type, exc, tb)

    async def complete(
        self, messages: Sequence[Wire], tools: Sequence[Mapping[str, Any]], sampling: SamplingParams, seed: int
    ) -> Completion:
        """One answer to `messages`, which are on the wire's form; `tools` are OpenAI function definitions.

        A context that the endpoint finds too long is an empty answer of `LENGTH`: the policy's limit, no failure.
        Raises `ProviderFailure` (kind `timeout`, `connection`, `rate_limit`, `server_error`, `malformed`, `refused` or
        `content_filter`), `ConfigError` for a refused key, an unknown model, and sampling that has no place in the API.
        """
        body = self._body(messages, tools, sampling, seed)
        for attempt in itertools.count(1):
            try:
                return await self._attempt(body)
            except _TryAgain as failed:
                if attempt == self._max_attempts:
                    text = f"{failed} ({attempt} attempts)" if attempt > 1 else str(failed)
                    raise ProviderFailure(text, kind=failed.kind, stage=_STAGE) from failed.__cause__
                self.stats.retries += 1
                await anyio.sleep(self._delay_s(attempt, failed.after_s, seed))
        raise AssertionError("unreachable: the last attempt raises")

    def _body(
        self, messages: Sequence[Wire], tools: Sequence[Mapping[str, Any]], sampling: SamplingParams, seed: int
    ) -> Wire:
        if sampling.top_k or sampling.stop_token_ids:
            raise ConfigError(
                "The chat API has neither top_k nor stop_token_ids: leave them out, or use `extra` for what your "
                "server calls them."
            )
        body: Wire = {
            "model": self.model,
            "messages": list(messages),
            self._limit_field: sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": seed % 2**31,
        }
        if sampling.top_p < 1.0:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if tools:
            body["tools"] = [dict(tool) for tool in tools]
        return body | self._extra

    def _delay_s(self, attempt: int, after_s: float | None, seed: int) -> float:
        """Seconds before the next attempt: what the server asks for, else doubling, spread by up to a half."""
        spread = 1 + 0.5 * float(stream(seed, "retry", attempt).random())
        doubling_s = self._retry_delay_s * 2 ** (attempt - 1) * spread
        return min(doubling_s if after_s is None else after_s, _LONGEST_DELAY_S)

    async def _attempt(self, body: Wire) -> Completion:
        try:
            async with self._slots:
                self.stats.requests += 1
                response = await self._http.post(self._url, json=body)
        except httpx.TimeoutException as error:
            raise _TryAgain(f"{self._url} did not answer in time", "timeout") from error
        except httpx.RequestError as error:
            raise _TryAgain(f"{self._url}: {type(error).__name__}: {error}", "connection") from error
        if response.is_success:
            return self._completion(response)
        return self._refusal(response)

    def _completion(self, response: httpx.Response) -> Completion:
        try:
            data = response.json()
            choice = data["choices"][0]
            wire = {name: choice["message"][name] for name in _ECHOED if choice["message"].get(name) is not None}
            message = message_from_wire({"content": None, **wire, "role": "assistant"})
            finish = choice.get("finish_reason") or "stop"
            usage = _usage(data.get("usage") or {})
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            what = str(error) if isinstance(error, WireError) else f"{type(error).__name__}: {error}"
            raise _TryAgain(f"{self._url} gave a malformed answer: {what}", "malformed") from error
        if finish == "content_filter":
            raise ProviderFailure(
                f"{self._url} filtered the answer", kind="content_filter", stage=_STAGE, retryable=False
            )
        if usage is not None:
            self.stats.prompt_tokens += usage.prompt_tokens
            self.stats.completion_tokens += usage.sampled_tokens
        echo = {"content": None, **wire, "role": "assistant"}
        if message.tool_calls:
            calls = zip(wire["tool_calls"], message.tool_calls, strict=True)
            echo["tool_calls"] = [_echoed_call(given, call) for given, call in calls]
        return Completion(message, _FINISH.get(finish, FinishReason.STOP), echo, usage)

    def _refusal(self, response: httpx.Response) -> Completion:
        """What an HTTP error means. Returns only when it means that the context is full."""
        status, (code, text) = response.status_code, _error(response)
        what = f"{self._url} answered {status}: {text}"
        if status in _RETRIED or status >= 500:
            kind = "rate_limit" if status == 429 else "timeout" if status == 408 else "server_error"
            raise _TryAgain(what, kind, retry_after_s(response.headers))
        if status in (401, 403):
            raise ConfigError(f"{what}. Set {self._key_variable} to a key that this endpoint accepts.")
        if status == 404:
            raise ConfigError(f"{what}. Check the base URL and the model {self.model!r}.")
        if code == "context_length_exceeded" or "maximum context length" in text:
            empty: Wire = {"role": "assistant", "content": ""}
            return Completion(Message("assistant", ""), FinishReason.LENGTH, empty, Usage(0, 0))
        raise ProviderFailure(what, kind="refused", stage=_STAGE, retryable=False)


class _TryAgain(Exception):
    """An attempt that failed in a way that another may not; `after_s` is when the server wants it."""

    def __init__(self, message: str, kind: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.after_s = after_s


def _usage(counted: Mapping[str, Any]) -> Usage | None:
    """An endpoint that tells only one of the two does not tell."""
    prompt, sampled = counted.get("prompt_tokens"), counted.get("completion_tokens")
    return None if prompt is None or sampled is None else Usage(int(prompt), int(sampled))


def _echoed_call(given: Wire, call: ToolCall) -> Wire:
    """A call as it came, with the id that its result will answer; servers refuse a history with malformed arguments."""
    function: Wire = dict(given["function"])
    if call.error is not None:
        function["arguments"] = json.dumps({"malformed": function["arguments"]})
    return {**given, "id": call.id, "type": "function", "function": function}


def _error(response: httpx.Response) -> tuple[str, str]:
    """Code and message of an OpenAI-shaped error; else the beginning of whatever came."""
    try:
        data: object = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return "", response.text[:200].strip() or response.reason_phrase
    error = cast("dict[str, Any]", data).get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return "", str(error)[:200]
    fields = cast("dict[str, Any]", error)
    return str(fields.get("code") or ""), str(fields.get("message") or fields)[:500]
