"""Who acts in an evaluation, ready to play: the policy with its engine, an endpoint's client, or a reference."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_rl.engine.openai import OpenAIClient
from agent_rl.evaluate.eval_config import ActorConfig
from agent_rl.rollout.agent import MakeAgent, OracleAgent, random_agent
from agent_rl.rollout.context import policy_agents
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.openai import OpenAIAgent
from agent_rl.store.checkpoint import MODEL, list_checkpoints
from agent_rl.tool.services import TokenEnds
from agent_rl.types import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Actor:
    """Makes agents. `token_ends` is the policy's measure of text; `positions` is how far its model can see."""

    make_agent: MakeAgent
    token_ends: TokenEnds | None = None
    positions: int | None = None

    def fitted(self, limits: RolloutLimits) -> RolloutLimits:
        """The limits, lowered to what the model can see."""
        return fitted(limits, self.positions)


@asynccontextmanager
async def open_actor(config: ActorConfig, max_context: int) -> AsyncGenerator[Actor, None]:
    """The actor that the config names; holds its engine while it is open, for contexts of up to `max_context` tokens.

    Raises `UserError` for a model that cannot be used.
    """
    sampling = SamplingParams(temperature=config.temperature, top_p=config.top_p)
    if config.agent == "oracle":
        yield Actor(lambda environment, _: OracleAgent(environment))
    elif config.agent == "random":
        yield Actor(random_agent)
    elif config.agent == "openai":
        async with OpenAIClient(config.model, config.base_url, max_concurrency=config.concurrency) as client:
            yield Actor(lambda _, key: OpenAIAgent(client, sampling, key))
    else:
        async with _policy(config, sampling, max_context) as policy:
            yield policy


@asynccontextmanager
async def _policy(config: ActorConfig, sampling: SamplingParams, max_context: int) -> AsyncGenerator[Actor, None]:
    from agent_rl.chat.codec import ChatCodec
    from agent_rl.engine.choose import open_engine
    from agent_rl.learner.policy import load_policy

    model, tokenizer = load_policy(model_source(config.model), dtype=config.dtype, device=config.device)
    codec = ChatCodec(tokenizer, config.tool_parser)
    positions = positions_of(model)
    with tempfile.TemporaryDirectory(prefix="agent-rl-") as folder:
        async with open_engine(
            config.engine,
            model,
            tokenizer,
            codec.encode_rendered,
            folder=Path(folder),
            max_batch=config.concurrency,
            max_context=min(max_context, positions or max_context),
        ) as engine:
            yield Actor(policy_agents(engine, codec, sampling, config.context), codec.ends, positions)


def fitted(limits: RolloutLimits, positions: int | None) -> RolloutLimits:
    """The limits, lowered to what a model with so many positions can see."""
    context = min(limits.max_context_tokens, positions or limits.max_context_tokens)
    response = min(limits.max_response_tokens, context - 1)
    return limits.model_copy(update={"max_context_tokens": context, "max_response_tokens": response})


def positions_of(model: PreTrainedModel) -> int | None:
    """How far a model can see, if it says so."""
    config: Any = model.config
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def model_source(source: str) -> str:
    """What to load the model from: a checkpoint stands for the model in it, a run folder for its latest checkpoint."""
    folder = Path(source)
    if checkpoints := list_checkpoints(folder):
        folder = checkpoints[-1].path
    return str(folder / MODEL) if (folder / MODEL).is_dir() else source
