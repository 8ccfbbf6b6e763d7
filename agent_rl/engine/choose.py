"""Which engine samples: the config, and the engine that it asks for, checked against the tokenizer of the policy."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from agent_rl.config import Config
from agent_rl.engine.base import Engine
from agent_rl.errors import ConfigError
from agent_rl.types import IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKEN_VARIABLE = "AGENT_RL_SERVE_TOKEN"
_PROBE = "Find the total width: SELECT 3.14 -- naïve café, 東京, 🙂\n\t<tool_call>"


class EngineConfig(Config):
    """Where responses are sampled."""

    kind: Literal["local", "vllm", "vllm_server"] = Field(
        default="local", description="Our own engine, vLLM in this process, or servers started with `vllm serve`."
    )
    urls: tuple[str, ...] = Field(default=(), description="Servers of kind vllm_server: data-parallel replicas.")
    weights_folder: Path | None = Field(
        default=None, description="Where weights pass to vLLM; shared memory, if not given."
    )
    weight_receivers: tuple[str, ...] = Field(
        default=(),
        description="`agent-rl serve weights` beside each of the urls, where these see no weights_folder of ours; "
        f"the token is in {TOKEN_VARIABLE}.",
    )
    options: dict[str, int | float | bool | str] = Field(
        default_factory=dict, description="vLLM's engine arguments, for kind vllm."
    )

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if (self.kind == "vllm_server") != bool(self.urls):
            raise ValueError("urls and kind=vllm_server go together: give both or neither.")
        if self.options and self.kind != "vllm":
            raise ValueError(f"kind={self.kind} has no options: leave them out, or choose kind=vllm.")
        if self.weight_receivers and len(self.weight_receivers) != len(self.urls):
            raise ValueError("weight_receivers are one for each of urls: give as many, or none.")
        if self.weights_folder is not None and self.kind == "local":
            raise ValueError("kind=local needs no weights_folder: leave it out.")
        return self


@asynccontextmanager
async def open_engine(
    config: EngineConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encode: Callable[[str], IntArray],
    *,
    folder: Path,
    max_batch: int,
    max_context: int,
    deterministic: bool = False,
) -> AsyncGenerator[Engine, None]:
    """The engine, running. `folder` may be written to: vLLM loads the model from there.

    Raises `ConfigError` when vLLM is missing, a server is not as it must be, or its tokenizer is not the policy's.
    """
    if deterministic and config.kind != "local":
        raise ConfigError(f"deterministic=true needs the local engine, not {config.kind}: vLLM's batches vary.")
    if config.kind == "local":
        from agent_rl.engine.local import LocalEngine

        async with LocalEngine(
            model, max_batch=max_batch, max_context=max_context, deterministic=deterministic
        ) as local:
            yield local
    elif config.kind == "vllm":
        from agent_rl.engine.vllm import VLLMEngine

        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        async with VLLMEngine(
            str(folder), max_context=max_context, weights_folder=config.weights_folder, **config.options
        ) as engine:
            yield engine
    else:
        from agent_rl.engine.vllm import VLLMServerEngine

        async with VLLMServerEngine(
            config.urls,
            weights_folder=config.weights_folder,
            receivers=config.weight_receivers,
            token=os.environ.get(TOKEN_VARIABLE, ""),
        ) as servers:
            special = " ".join(tokenizer.all_special_tokens)
            for text in (_PROBE, special):
                ours = encode(text).tolist()
                for url, theirs in (await servers.encode(text)).items():
                    _compare(ours, theirs, url)
            if servers.max_context < max_context:
                raise ConfigError(
                    f"The servers take {servers.max_context} tokens, but max_context_tokens={max_context}: "
                    "lower it, or start them with a longer --max-model-len."
                )
            yield servers


def _compare(ours: list[int], theirs: list[int], url: str) -> None:
    if ours != theirs:
        raise ConfigError(
            f"The tokenizer of {url} is not that of the policy: serve the model that is trained, "
            "or pass its folder to `vllm serve` as --tokenizer."
        )
