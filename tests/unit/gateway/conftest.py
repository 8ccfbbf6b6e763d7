from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from agent_rl.chat.codec import ChatCodec
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.gateway.recording import Recording
from agent_rl.rollout.agent import EpisodeKey
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.types import SamplingParams, Segment

KEY = EpisodeKey(seed=3, task_id="task", member=1)
CALL = '<tool_call>\n{"name": "add", "arguments": {"amount": 2}}\n</tool_call>'


@pytest.fixture(scope="session")
def codec() -> ChatCodec:
    return ChatCodec(make_tokenizer(["Count to 3. The total is 2. done hello again", CALL]))


@pytest.fixture
def saying(codec) -> Callable[..., ScriptedEngine]:
    """An engine that says these texts in turn, the last one forever; each token's log-prob tells its place."""

    def make(*texts: str, **options) -> ScriptedEngine:
        left = [[*codec.encode_rendered(text).tolist(), codec.stop_token_ids[0]] for text in texts]

        def respond(request: GenerationRequest) -> Sequence[int]:
            return left.pop(0) if len(left) > 1 else left[0]

        return ScriptedEngine(respond, logprobs=lambda _, ids: -np.arange(1, len(ids) + 1), **options)

    return make


@pytest.fixture
def record(codec) -> Callable[..., Recording]:
    """A recording without a server."""

    def make(engine, limits: RolloutLimits | None = None, codec=codec, **options) -> Recording:
        return Recording(
            engine, codec, SamplingParams(), KEY, limits or RolloutLimits(), name="e", base_url="http://none", **options
        )

    return make


@pytest.fixture
def text_of(codec) -> Callable[[Segment], str]:
    """The row as text, sampled spans in brackets."""

    def decode(segment: Segment) -> str:
        text, mask = "", segment.response_mask_T
        cuts = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
        for start, end in pairwise(cuts):
            piece = codec.decode(segment.token_ids_T[start:end])
            text += f"[{piece}]" if mask[start] else piece
        return text

    return decode
