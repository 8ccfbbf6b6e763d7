"""Requests in vLLM's terms, responses in ours. Imports no vLLM."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import numpy as np

from agent_rl.engine.base import GenerationRequest
from agent_rl.errors import ConfigError, ProviderFailure
from agent_rl.types import FinishReason, Generation

R = TypeVar("R")

LOGPROBS_MODE = "processed_logprobs"
"""vLLM's name for log-probs of the distribution that was sampled from: after temperature, top-p and top-k."""

_ABORT_AGAIN_S = 0.02
_FINISH = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH, "abort": FinishReason.ABORT}


def sampling_fields(request: GenerationRequest, max_context: int) -> dict[str, Any]:
    """vLLM's sampling parameters. Raises `ConfigError` for a prompt that leaves no room for a token."""
    sampling, prompt = request.sampling, len(request.prompt_ids_T)
    if prompt == 0 or sampling.max_tokens < 1:
        raise ConfigError("A generation needs a prompt of at least one token and max_tokens of at least 1.")
    if prompt >= max_context:
        raise ConfigError(f"The prompt has {prompt} tokens, but the engine's max_model_len is {max_context}.")
    return {
        "max_tokens": min(sampling.max_tokens, max_context - prompt),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": request.seed,
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": True,  # only what the request names ends a response
        "stop": list(sampling.stop),
        "include_stop_str_in_output": True,
        "detokenize": bool(sampling.stop),
        "logprobs": 0,  # that of the sampled token alone
    }


@dataclass(slots=True)
class Response:
    """A response as it grows. `version` is that of the weights which its latest tokens came from."""

    version: int
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    versions: list[int] = field(default_factory=list[int])

    def add(self, ids: Sequence[int], logprobs: Sequence[float], version: int) -> None:
        """Append tokens that were sampled by the weights of `version`."""
        self.ids += ids
        self.logprobs += logprobs
        self.versions += [version] * len(ids)
        self.version = version

    def stamp(self, spans: Sequence[tuple[str, int, int]]) -> None:
        """Correct the versions by what vLLM says: `(version, start, end)`. Its own name for the first is no number."""
        for version, start, end in spans:
            if version.isdecimal():
                self.versions[start:end] = [int(version)] * (min(end, len(self.ids)) - start)

    def generation(self, finish_reason: str | None) -> Generation:
        """Raises `ProviderFailure` when vLLM ended the response for a reason that is none of ours."""
        if finish_reason not in _FINISH:
            raise ProviderFailure(f"vLLM ended a response with {finish_reason!r}", kind="crash", stage="generation")
        if not len(self.ids) == len(self.logprobs) == len(self.versions):
            raise ProviderFailure(
                "vLLM returned tokens without log-probs", kind="malformed", stage="generation", retryable=False
            )
        return Generation(
            np.array(self.ids, np.int32),
            np.minimum(np.array(self.logprobs, np.float32), 0.0),
            np.array(self.versions, np.int32),
            _FINISH[finish_reason],
        )


async def end(running: Mapping[str, R], session: str, abort: Callable[[R], Awaitable[None]]) -> None:
    """Abort the session's request until it has ended: vLLM forgets what it is told about a request not yet begun."""
    request = running.get(session)
    while request is not None and running.get(session) == request:
        await abort(request)
        await anyio.sleep(_ABORT_AGAIN_S)
