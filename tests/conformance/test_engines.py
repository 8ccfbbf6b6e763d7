"""Both engines keep the contract, and the kit that says so notices engines that do not."""

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from agent_rl.engine import GenerationRequest, ScriptedEngine
from agent_rl.engine.local import LocalEngine
from agent_rl.seeding import stream
from agent_rl.testing.engine import check_engine
from agent_rl.types import FinishReason, Generation

pytestmark = pytest.mark.anyio


def scripted(request: GenerationRequest) -> list[int]:
    """Endless in effect, and random by the request's seed."""
    return stream(request.seed).integers(0, 50, request.sampling.max_tokens).tolist()


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
    )
    return Qwen3ForCausalLM(config).eval()


async def test_scripted_engine() -> None:
    await check_engine(lambda: ScriptedEngine(scripted, latency_s=0.02))


@pytest.mark.parametrize("deterministic", [False, True])
async def test_local_engine(model: Qwen3ForCausalLM, deterministic: bool) -> None:
    def factory() -> LocalEngine:
        return LocalEngine(model, max_batch=4, max_context=300, deterministic=deterministic)

    await check_engine(factory)


class Broken(ScriptedEngine):
    """An engine that breaks one promise."""

    def __init__(self, promise: str) -> None:
        super().__init__(scripted, latency_s=0.02)
        self.promise = promise
        self.calls = 0

    async def generate(self, request: GenerationRequest) -> Generation:
        self.calls += 1
        if self.promise == "seeds":
            request = GenerationRequest(request.session, request.prompt_ids_T, request.sampling, self.calls)
        good = await super().generate(request)
        ids, logprobs, versions = good.token_ids_R, good.logprobs_R, good.weight_versions_R
        match self.promise:
            case "lengths":
                logprobs = logprobs[:-1]
            case "probabilities":
                logprobs = logprobs + 0.5
            case "stop":
                ids, logprobs, versions = (np.append(array, array[-1:]) for array in (ids, logprobs, versions))
            case "versions":
                versions = versions * 0
            case "reasons":
                return Generation(ids, logprobs, versions, FinishReason.LENGTH)
        return Generation(ids, logprobs, versions, good.finish_reason)

    async def abort(self, session: str) -> None:
        if self.promise != "abort":
            await super().abort(session)


@pytest.mark.parametrize("promise", ["seeds", "lengths", "probabilities", "stop", "versions", "reasons", "abort"])
async def test_the_kit_notices(promise: str) -> None:
    with pytest.raises(AssertionError):
        await check_engine(lambda: Broken(promise))
