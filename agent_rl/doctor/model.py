"""Episodes of the model itself, and the log-probs that the learner computes for them. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agent_rl.chat.codec import ChatCodec
from agent_rl.concurrency import collect
from agent_rl.doctor.episodes import Case, EngineBase, Played, play
from agent_rl.engine.base import Engine, GenerationRequest
from agent_rl.engine.local import LocalEngine
from agent_rl.learner.attention import check_packable, packed_attention
from agent_rl.learner.batch import pack
from agent_rl.learner.logprobs import trained_logprobs
from agent_rl.learner.tensors import to_tensors
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import FinishReason, FloatArray, Generation, Segment, TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RESPONSE_TOKENS = 32  # of each turn: the log-probs of a few tell as much as those of many
_CONTEXT_TOKENS = 8192
_CONCURRENCY = 8


async def sampled_by(
    model: PreTrainedModel,
    codec: ChatCodec,
    cases: Sequence[Case],
    seed: int,
    make_engine: Callable[[PreTrainedModel, int], Engine] | None = None,
) -> list[Played]:
    """Episodes of `model`, several at once as in training. Raises `UserError` for a model that cannot be served."""
    config: Any = model.config
    positions: int = getattr(config.get_text_config(), "max_position_embeddings", None) or _CONTEXT_TOKENS
    context = min(positions, _CONTEXT_TOKENS)
    limits = RolloutLimits(max_context_tokens=context, max_response_tokens=min(_RESPONSE_TOKENS, context - 1))
    engine = (make_engine or _local_engine)(model, context)
    async with engine:
        patient = _Patient(engine)
        return await collect([partial(play, case, lambda _: patient, codec, limits, seed) for case in cases])


class _Patient(EngineBase):
    """Takes a response that was cut for a whole one, so that episodes go on: what is examined needs several turns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def generate(self, request: GenerationRequest) -> Generation:
        return replace(await self._engine.generate(request), finish_reason=FinishReason.STOP)

    async def release(self, session: str) -> None:
        await self._engine.release(session)


def _local_engine(model: PreTrainedModel, max_context: int) -> LocalEngine:
    return LocalEngine(model, max_batch=_CONCURRENCY, max_context=max_context)


def forward_logprobs(model: PreTrainedModel, episodes: Sequence[Played]) -> list[tuple[Segment, FloatArray]]:
    """Each segment with the learner's log-probs of its sampled tokens, 0 elsewhere."""
    check_packable(model)
    segments = [segment for played in episodes for segment in played.trajectory.segments]
    with packed_attention(model), torch.no_grad():
        return [(segment, _forward(model, segment)) for segment in segments]


def _forward(model: PreTrainedModel, segment: Segment) -> FloatArray:
    row = TrainingRow(
        token_ids_T=segment.token_ids_T,
        response_mask_T=segment.response_mask_T,
        rollout_logprobs_T=segment.rollout_logprobs_T,
        advantages_T=np.zeros(len(segment.token_ids_T), np.float32),
        weights_T=segment.response_mask_T.astype(np.float32),
        weight_versions_T=segment.weight_versions_T,
    )
    (batch,) = pack([row], token_budget=len(segment.token_ids_T))
    logprobs_K, _ = trained_logprobs(model, to_tensors(batch, model.device), temperature=1.0)
    logprobs_T = np.zeros(len(segment.token_ids_T), np.float32)
    logprobs_T[segment.response_mask_T] = logprobs_K.float().cpu().numpy()
    return logprobs_T
