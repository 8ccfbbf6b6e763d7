"""vLLM inside this process: the engine contract, log-probs of the transformers model, weights that change in flight."""

import time

import anyio
import numpy as np
import pytest
import torch

from agent_rl.concurrency import collect
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.vllm import VLLMEngine
from agent_rl.errors import ConfigError
from agent_rl.testing.engine import check_engine
from agent_rl.types import FinishReason, SamplingParams

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
OPTIONS = {"enforce_eager": True, "dtype": "float32", "gpu_memory_utilization": 0.2, "max_num_seqs": 32}
PROMPT = np.arange(3, 15, dtype=np.int32)


def make_engine(folder, **options):
    return VLLMEngine(str(folder), max_context=400, **OPTIONS, **options)


def reference_logprobs(model, prompt, ids, temperature):
    with torch.no_grad():
        row = torch.tensor([[*prompt, *ids]], dtype=torch.long)
        logits = model(input_ids=row).logits[0, len(prompt) - 1 : -1] / temperature
        return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].numpy()


async def test_what_it_samples_and_says_about_it(model, model_folder):
    async with make_engine(model_folder) as engine:
        assert engine.max_context == 400
        for temperature in (1.0, 0.7):
            sampling = SamplingParams(max_tokens=50, temperature=temperature)
            generation = await engine.generate(GenerationRequest(f"t{temperature}", PROMPT, sampling, 5))
            expected = reference_logprobs(model, PROMPT.tolist(), generation.token_ids_R.tolist(), temperature)
            assert np.abs(generation.logprobs_R - expected).max() < 1e-4
            assert generation.logprobs_R.std() > 0.1

        before = await engine.generate(GenerationRequest("a", PROMPT, SamplingParams(max_tokens=20, temperature=0), 0))
        changed = {name: tensor * 0.5 for name, tensor in model.state_dict().items()}
        long = SamplingParams(max_tokens=300)
        during = await updated_midway(engine, GenerationRequest("long", PROMPT, long, 1), changed)
        assert during.finish_reason is FinishReason.LENGTH
        assert len(during.token_ids_R) == 300, "the partial response survives the update"
        version = engine.weight_version
        assert set(during.weight_versions_R.tolist()) == {version - 1, version}
        assert (np.diff(during.weight_versions_R) >= 0).all()

        after = await engine.generate(GenerationRequest("b", PROMPT + 1, SamplingParams(max_tokens=20), 0))
        halved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(changed)
        try:
            expected = reference_logprobs(model, (PROMPT + 1).tolist(), after.token_ids_R.tolist(), 1.0)
        finally:
            model.load_state_dict(halved)
        assert np.abs(after.logprobs_R - expected).max() < 1e-4
        assert set(after.weight_versions_R.tolist()) == {version}
        assert before.weight_versions_R.tolist() == [0] * 20
        await check_engine(lambda: Shared(engine), prompt_ids=PROMPT.tolist(), long_tokens=300)

        with pytest.raises(ConfigError, match="older"):
            await engine.update_weights({}, 0)
        with pytest.raises(ConfigError, match="max_model_len"):
            await engine.generate(GenerationRequest("c", np.ones(400, np.int32), SamplingParams(), 0))


class Shared:
    """A running engine for every check: a fresh one takes vLLM half a minute."""

    def __init__(self, engine: VLLMEngine) -> None:
        self._engine = engine

    def __getattr__(self, name):
        return getattr(self._engine, name)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        return None


async def updated_midway(engine, request, weights, attempts=5):
    """The response to a request during which the weights change: halfway through what it took before, so that a fast
    machine is as good as a slow one; another one, where it ended before all the same."""
    began = time.perf_counter()
    await engine.generate(request)
    half_s = (time.perf_counter() - began) / 2

    async def update() -> None:
        await anyio.sleep(half_s)
        await engine.update_weights(weights, engine.weight_version + 1)

    for _ in range(attempts):
        during, _ = await collect([lambda: engine.generate(request), update])
        if len(set(during.weight_versions_R.tolist())) > 1:
            break
        half_s /= 2
    return during
