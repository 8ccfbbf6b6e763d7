"""What older weights leave in the cache, whose version a token carries, and when a server counts as lost."""

import json

import anyio
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agent_rl.concurrency import collect
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.vllm import VLLMEngine, VLLMServerEngine
from agent_rl.errors import ProviderFailure
from agent_rl.testing.tiny import make_model
from agent_rl.types import SamplingParams

pytestmark = pytest.mark.anyio
OPTIONS = {"enforce_eager": True, "dtype": "float32", "gpu_memory_utilization": 0.15, "max_num_seqs": 32}
PROMPT = (np.arange(300) % 200 + 3).astype(np.int32)  # more than one block of vLLM's cache (128 tokens on a CPU)


def worst(generation, model, prompt=PROMPT) -> np.ndarray:
    ids = generation.token_ids_R.tolist()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt.tolist(), *ids]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].numpy()
    return np.abs(generation.logprobs_R - expected)


@pytest.fixture(scope="module")
def other(tokenizer):
    """Other weights of the same shapes; its embedding and its head are one tensor, as in a real learner."""
    model = make_model(tokenizer, max_context=512, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model


def write_adapter(folder, layer) -> None:
    generator = torch.Generator().manual_seed(0)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    a = torch.randn(1, layer.in_features, generator=generator)
    b = torch.randn(layer.out_features, 1, generator=generator)
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.slow
async def test_cache_and_versions(model, other, model_folder, tmp_path):
    options = OPTIONS | {"enable_lora": True, "max_lora_rank": 8}
    async with VLLMEngine(str(model_folder), max_context=500, **options) as engine:

        async def sample(session, max_tokens=20, seed=0):
            sampling = SamplingParams(max_tokens=max_tokens)
            return await engine.generate(GenerationRequest(session, PROMPT, sampling, seed))

        assert worst(await sample("old"), model).max() < 1e-4
        await engine.update_weights(other.state_dict(), 1)
        young = await sample("young")
        assert worst(young, other).max() < 1e-4, "a new episode must not meet the keys and values of older weights"
        assert worst(await sample("old"), other).max() > 1e-2, "a running episode keeps its cache"
        await engine.release("old")
        assert worst(await sample("old"), other).max() < 1e-4, "a released session is forgotten"

        write_adapter(tmp_path, model.model.layers[0].self_attn.q_proj)

        async def load() -> None:
            await anyio.sleep(0.1)
            await engine.load_adapter(tmp_path, 2)

        during, _ = await collect([lambda: sample("during", 150, 5), load])
        assert worst(during, other).max() < 1e-4
        assert set(during.weight_versions_R.tolist()) == {1}, "sampled without the adapter from first to last"
        after = await sample("after")
        assert set(after.weight_versions_R.tolist()) == {2}
        assert worst(after, other).max() > 1e-2
        await engine.update_weights(model.state_dict(), 3)
        assert worst(await sample("merged"), model).max() < 1e-4, "full weights replace an adapter"


class FakeServer:
    """Speaks enough of vLLM's HTTP to be sampled from; drops connections, or answers 500 as with a dead engine."""

    def __init__(self) -> None:
        self.drops = 0
        self.engine_dead = False
        self.generated = 0

    async def serve(self, *, task_status) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        task_status.started(f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}")
        async with listener:
            await listener.serve(self._handle)

    async def _handle(self, client) -> None:
        async with client:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await client.receive()
            status, body = self._answer(data.split()[1].decode().partition("?")[0])
            if status is None:
                return
            text = json.dumps(body).encode()
            head = f"HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
            await client.send(head.encode() + text)

    def _answer(self, path):
        if path == "/v1/models":
            return 200, {"data": [{"id": "m", "max_model_len": 100}]}
        if path == "/server_info":
            return 200, {"vllm_config": {"model_config": {"logprobs_mode": "processed_logprobs"}}}
        if path == "/health":
            return (503 if self.engine_dead else 200), {}
        if path != "/inference/v1/generate":
            return 200, {}
        if self.drops:
            self.drops -= 1
            return None, {}
        if self.engine_dead:
            return 500, {"error": "EngineDeadError"}
        self.generated += 1
        choice = {"token_ids": [5], "logprobs": {"content": [{"logprob": -1.0}]}, "finish_reason": "length"}
        return 200, {"choices": [choice | {"weight_versions": [{"version": "0", "start": 0, "end": 1}]}]}


def request(session) -> GenerationRequest:
    return GenerationRequest(session, np.array([1, 2], np.int32), SamplingParams(max_tokens=1), 0)


async def test_a_lost_answer_is_no_lost_server():
    server = FakeServer()
    async with anyio.create_task_group() as tasks:
        async with VLLMServerEngine([await tasks.start(server.serve)]) as engine:
            server.drops = 1
            with pytest.raises(ProviderFailure) as lost:
                await engine.generate(request("a"))
            assert (lost.value.kind, lost.value.retryable) == ("connection", True)
            assert (await engine.generate(request("a"))).token_ids_R.tolist() == [5]
        tasks.cancel_scope.cancel()


async def test_a_server_whose_engine_died_is_lost_and_comes_back_with_a_complete_update():
    first, second = FakeServer(), FakeServer()
    async with anyio.create_task_group() as tasks:
        async with VLLMServerEngine([await tasks.start(s.serve) for s in (first, second)]) as engine:
            first.engine_dead = True
            assert (await engine.generate(request("a"))).token_ids_R.tolist() == [5]
            assert (first.generated, second.generated) == (0, 1)
            first.engine_dead = False  # restarted, with its first weights
            await engine.update_weights({}, 1)
            await engine.generate(request("b"))
            assert first.generated == 0, "its weights are not those of the others"
            await engine.update_weights({"w": torch.zeros(1)}, 2)
            await engine.generate(request("c"))
            assert first.generated == 1
        tasks.cancel_scope.cancel()
