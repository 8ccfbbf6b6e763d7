from collections.abc import Callable, Sequence

import pytest

from agent_rl.chat.codec import ChatCodec
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.testing.environments import GuessNumber
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.types import IntArray, Task


@pytest.fixture(scope="session")
def codec() -> ChatCodec:
    return ChatCodec(make_tokenizer(["Guess my number. It is from 0 to 99.", "higher", "lower", "correct"]))


@pytest.fixture(scope="session")
def ids_of(codec) -> Callable[[str], IntArray]:
    """The tokens of a text, without any end of turn."""
    return codec.encode_rendered


@pytest.fixture
def saying(codec, ids_of) -> Callable[..., ScriptedEngine]:
    """An engine that says these texts in turn, each ended by the stop token, the last one forever."""

    def make(texts: Sequence[str], **options) -> ScriptedEngine:
        left = [[*ids_of(text).tolist(), codec.stop_token_ids[0]] for text in texts]

        def respond(request: GenerationRequest) -> list[int]:
            return left.pop(0) if len(left) > 1 else left[0]

        return ScriptedEngine(respond, **options)

    return make


@pytest.fixture
def task() -> Task:
    """The hidden number is even."""
    return GuessNumber.tasks("train", 1)[0]
