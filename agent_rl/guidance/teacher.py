"""A model behind an endpoint that criticises, shared by all groups of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import anyio

from agent_rl.concurrency import collect
from agent_rl.engine.openai import OpenAIClient
from agent_rl.errors import ProviderFailure, RolloutFailure, boundary
from agent_rl.guidance.config import TeacherConfig
from agent_rl.seeding import derive_seed
from agent_rl.tool.services import share
from agent_rl.types import SamplingParams

_logger = logging.getLogger(__name__)


async def ask_teacher(config: TeacherConfig, questions: Sequence[str], seed: int) -> list[str]:
    """Its answers, empty where it fails. Raises `UserError` for an endpoint that refuses, or outside of a run."""
    client = await share(
        ("guidance", config.model_dump_json()),
        partial(
            OpenAIClient,
            config.model,
            config.base_url,
            api_key_variable=config.api_key_variable,
            max_concurrency=config.max_concurrency,
            request_timeout_s=config.timeout_s,
        ),
    )
    sampling = SamplingParams(max_tokens=config.max_tokens, temperature=config.temperature)

    async def answer(place: int, question: str) -> str:
        messages = [{"role": "user", "content": question}]
        try:
            with boundary(ProviderFailure, "guidance"), anyio.fail_after(config.timeout_s):
                completion = await client.complete(messages, (), sampling, derive_seed(seed, "guidance", place))
        except RolloutFailure as failure:
            _logger.warning("The teacher did not answer: %s", failure)
            return ""
        return completion.message.content

    return await collect(partial(answer, place, question) for place, question in enumerate(questions))
