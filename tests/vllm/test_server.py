"""`vllm serve` behind HTTP: the engine contract, replicas that die, adapters, and an episode through all of it."""

import json
from functools import partial

import anyio
import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agent_rl.chat.codec import ChatCodec
from agent_rl.concurrency import collect
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.vllm import VLLMServerEngine
from agent_rl.errors import ConfigError
from agent_rl.rollout.agent import PolicyAgent
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.testing.engine import check_engine
from agent_rl.testing.environments import GuessNumber
from agent_rl.types import SamplingParams
from tests.vllm.test_in_process import PROMPT, reference_logprobs, updated_midway

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_the_engine_contract(server):
    await check_engine(lambda: VLLMServerEngine([server]), prompt_ids=PROMPT.tolist(), long_tokens=300)


async def test_logprobs_are_those_of_the_model_at_the_sampling_temperature(server, model):
    async with VLLMServerEngine([server]) as engine:
        await engine.update_weights(model.state_dict(), 1)
        for temperature in (1.0, 0.7):
            sampling = SamplingParams(max_tokens=50, temperature=temperature)
            generation = await engine.generate(GenerationRequest(f"t{temperature}", PROMPT, sampling, 5))
            expected = reference_logprobs(model, PROMPT.tolist(), generation.token_ids_R.tolist(), temperature)
            assert np.abs(generation.logprobs_R - expected).max() < 1e-4


async def test_tied_weights_change_together(server, model):
    """Both ends of the model: its embedding and its head are one tensor."""
    changed = {name: tensor * 0.5 for name, tensor in model.state_dict().items()}
    async with VLLMServerEngine([server]) as engine:
        for version, weights in ((1, changed), (2, model.state_dict())):
            await engine.update_weights(weights, version)
        generation = await engine.generate(GenerationRequest("tied", PROMPT, SamplingParams(max_tokens=20), 5))
    expected = reference_logprobs(model, PROMPT.tolist(), generation.token_ids_R.tolist(), 1.0)
    assert np.abs(generation.logprobs_R - expected).max() < 1e-4


async def test_a_partial_response_survives_new_weights(server, model):
    changed = {name: tensor * 0.5 for name, tensor in model.state_dict().items()}
    async with VLLMServerEngine([server]) as engine:
        await engine.update_weights(model.state_dict(), 1)
        request = GenerationRequest("long", PROMPT, SamplingParams(max_tokens=300), 1)
        try:
            during = await updated_midway(engine, request, changed)
            assert len(during.token_ids_R) == 300
            assert set(during.weight_versions_R.tolist()) == {engine.weight_version - 1, engine.weight_version}
        finally:
            await engine.update_weights(model.state_dict(), engine.weight_version + 1)


class Link:
    """A way to the server that can be cut, such as a machine that dies."""

    def __init__(self, server: str) -> None:
        self._target = int(server.rpartition(":")[2])
        self.requests = 0
        self._scope = anyio.CancelScope()

    def cut(self) -> None:
        self._scope.cancel()

    async def serve(self, *, task_status) -> None:
        with self._scope:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            task_status.started(f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}")
            async with listener:
                await listener.serve(self._handle)

    async def _handle(self, client) -> None:
        upstream = await anyio.connect_tcp("127.0.0.1", self._target)
        async with client, upstream, anyio.create_task_group() as tasks:
            tasks.start_soon(self._pump, client, upstream, tasks)
            tasks.start_soon(self._pump, upstream, client, tasks)

    async def _pump(self, source, target, tasks) -> None:
        try:
            async for data in source:
                self.requests += b"/inference/v1/generate" in data
                await target.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        tasks.cancel_scope.cancel()


async def test_episodes_stay_at_their_server_and_move_when_it_dies(server):
    first, second = Link(server), Link(server)
    async with anyio.create_task_group() as tasks:
        urls = [await tasks.start(link.serve) for link in (first, second)]
        async with VLLMServerEngine(urls) as engine:

            async def turn(session, seed):
                return await engine.generate(GenerationRequest(session, PROMPT, SamplingParams(max_tokens=2), seed))

            for seed in range(4):
                await turn("a", seed)
            assert (first.requests, second.requests) == (4, 0)
            await turn("b", 0)
            assert (first.requests, second.requests) == (4, 1), "the server with fewer episodes takes the next one"
            first.cut()
            moved = await turn("a", 4)
            assert len(moved.token_ids_R) == 2
            assert second.requests == 2
            await engine.update_weights({}, 1)
            await turn("c", 0)
            assert second.requests == 3, "a server that missed an update stays out"
        tasks.cancel_scope.cancel()


async def test_an_adapter_changes_the_samples(server, model, tmp_path):
    """A rank-1 adapter of one layer's query projection, applied by hand for comparison."""
    layer = model.model.layers[0].self_attn.q_proj
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, layer.in_features, generator=generator)
    b = torch.randn(layer.out_features, 1, generator=generator)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    async with VLLMServerEngine([server]) as engine:
        await engine.update_weights(model.state_dict(), 1)
        await engine.load_adapter(tmp_path, 2)
        generation = await engine.generate(GenerationRequest("lora", PROMPT, SamplingParams(max_tokens=30), 0))
    ids = generation.token_ids_R.tolist()
    without = reference_logprobs(model, PROMPT.tolist(), ids, 1.0)
    with torch.no_grad():
        before = layer.weight.clone()
        layer.weight += b @ a
        adapted = reference_logprobs(model, PROMPT.tolist(), ids, 1.0)
        layer.weight.copy_(before)
    assert np.abs(generation.logprobs_R - adapted).max() < 1e-4
    assert np.abs(generation.logprobs_R - without).max() > 1e-2
    assert set(generation.weight_versions_R.tolist()) == {2}


async def test_an_episode_through_the_server(server, model, tokenizer):
    codec = ChatCodec(tokenizer)
    async with VLLMServerEngine([server]) as engine:
        assert await engine.encode("Guess my number.") == {server: codec.encode_rendered("Guess my number.").tolist()}
        trajectory = await run_episode(
            lambda task: GuessNumber(),
            lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key),
            GuessNumber.tasks("train", 1)[0],
            group_index=0,
            member=0,
            seed=0,
            limits=RolloutLimits(max_turns=2, max_response_tokens=20, max_context_tokens=400),
        )
    assert trajectory.failure is None
    assert trajectory.sampled_tokens == sum(turn.end - turn.start for turn in trajectory.turns) > 0


async def test_servers_that_cannot_serve_are_refused_before_the_run(server):
    for urls, mend in ((["localhost:1"], "must start with http"), ([], "at least one server")):
        with pytest.raises(ConfigError, match=mend):
            VLLMServerEngine(urls)
    with pytest.raises(BaseExceptionGroup) as absent:
        async with VLLMServerEngine([server, "http://127.0.0.1:9"]):
            pass
    assert absent.group_contains(ConfigError, match="Start it with: VLLM_SERVER_DEV_MODE=1 vllm serve")


async def test_cancelled_requests_end_at_the_server(server):
    requests = [GenerationRequest(f"gone {n}", PROMPT, SamplingParams(max_tokens=380), n) for n in range(64)]
    async with VLLMServerEngine([server]) as engine, httpx.AsyncClient() as client:

        async def counted(name: str) -> float:
            lines = (await client.get(f"{server}/metrics")).text.splitlines()
            (line,) = [line for line in lines if line.startswith(f"vllm:{name}{{")]
            return float(line.rpartition(" ")[2])

        generations = await collect([partial(engine.generate, request) for request in requests])
        wanted = sum(len(generation.token_ids_R) for generation in generations)
        sampled = -await counted("generation_tokens_total")
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for request in requests:
                    tasks.start_soon(engine.generate, request)
                while not await counted("num_requests_running"):  # noqa: ASYNC110  # no event tells the test
                    await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()
            while await counted("num_requests_running") or await counted("num_requests_waiting"):  # noqa: ASYNC110
                await anyio.sleep(0.05)
        sampled += await counted("generation_tokens_total")
        assert sampled < wanted / 2, "what was cancelled is sampled no further"
