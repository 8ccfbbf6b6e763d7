"""From a learner to a receiver beside a server: the same weights bit for bit, whatever was missed on the way."""

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.delta.encoder import Encoder
from agent_rl.engine.delta.folder import FILE, OtherWeights, WeightsFolder
from agent_rl.engine.local import LocalEngine
from agent_rl.engine.vllm.server import VLLMServerEngine
from agent_rl.engine.vllm.weights import WeightFiles
from agent_rl.errors import ConfigError, ProviderFailure
from agent_rl.learner.config import LearnerConfig, LoraConfig
from agent_rl.learner.learner import Learner
from agent_rl.serve.server import with_token
from agent_rl.serve.weights import weights_app
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.types import SamplingParams, TrainingRow
from agent_rl.web import listen, serving

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def at_a_port(app):
    listener = listen("127.0.0.1", 0)
    async with serving(app, listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class Server:
    """What `VLLMServerEngine` needs of `vllm serve`, and what it loaded."""

    def __init__(self, dtype: str = "bfloat16") -> None:
        config = {"max_model_len": 100, "logprobs_mode": "processed_logprobs", "dtype": f"torch.{dtype}"}
        self.loaded: list[dict[str, torch.Tensor]] = []

        async def any_command(request):
            if request.url.path == "/collective_rpc":
                folder = (await request.json())["kwargs"]["weights_path"]
                found = load_file(Path(folder) / FILE)  # maps the file, which changes with the next delta
                self.loaded.append({name: tensor.clone() for name, tensor in found.items()})
            return JSONResponse({"data": [config], "vllm_config": {"model_config": config}})

        self.app = Starlette(routes=[Route("/{path:path}", any_command, methods=["GET", "POST"])])


class Counted:
    """An app, and the methods and sizes of the requests to it."""

    def __init__(self, app) -> None:
        self._app = app
        self.requests: list[tuple[str, int]] = []

    async def __call__(self, scope, receive, send) -> None:
        size = 0

        async def counting():
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        await self._app(scope, counting, send)
        self.requests.append((scope["method"], size))


def changed(weights, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: t * (1 + 1e-3 * torch.randn(t.shape, generator=generator)) for name, t in weights.items()}


def make_weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(300, 70, generator=generator), "b": torch.randn(50, generator=generator)}


def rounded(weights):
    return {name: tensor.bfloat16() for name, tensor in weights.items()}


def assert_same_bits(actual, expected):
    assert {n: (t.dtype, t.shape) for n, t in actual.items()} == {n: (t.dtype, t.shape) for n, t in expected.items()}
    for name, tensor in expected.items():
        assert torch.equal(actual[name].view(torch.uint8), tensor.contiguous().view(torch.uint8)), name


async def test_only_what_changed_is_sent_and_the_server_loads_the_new_weights(tmp_path):
    server, receiver = Server(), Counted(weights_app(WeightsFolder(tmp_path)))
    weights = [make_weights()]
    weights += [changed(weights[0], 1), changed(weights[0], 2)]
    async with (
        at_a_port(server.app) as url,
        at_a_port(receiver) as beside,
        VLLMServerEngine([url], receivers=[beside]) as engine,
    ):
        for version, each in enumerate(weights):
            await engine.update_weights(each, version)
    for loaded, expected in zip(server.loaded, weights, strict=True):
        assert_same_bits(loaded, rounded(expected))
    assert [method for method, _ in receiver.requests] == ["PUT", "PATCH", "PATCH"]
    assert max(size for _, size in receiver.requests[1:]) < receiver.requests[0][1] / 4


async def test_a_receiver_that_missed_an_update_gets_all_weights(tmp_path):
    """One of two is restarted, with nothing in its folder; the other goes on with deltas."""
    folders = [WeightsFolder(tmp_path / name) for name in ("0", "1")]
    for folder in folders:
        folder.folder.mkdir()
    servers, receivers = [Server(), Server()], [Counted(weights_app(folder)) for folder in folders]
    weights = [make_weights(), changed(make_weights(), 1), changed(make_weights(), 2)]
    async with (
        at_a_port(servers[0].app) as a,
        at_a_port(servers[1].app) as b,
        at_a_port(receivers[0]) as near_a,
        at_a_port(receivers[1]) as near_b,
        VLLMServerEngine([a, b], receivers=[near_a, near_b]) as engine,
    ):
        await engine.update_weights(weights[0], 0)
        folders[1].name = None
        await engine.update_weights(weights[1], 1)
        await engine.update_weights(weights[2], 2)
    assert [m for m, _ in receivers[0].requests] == ["PUT", "PATCH", "PATCH"]
    assert [m for m, _ in receivers[1].requests] == ["PUT", "PATCH", "PUT", "PATCH"]
    for server in servers:
        for loaded, expected in zip(server.loaded, weights, strict=True):
            assert_same_bits(loaded, rounded(expected))


async def test_a_receiver_without_the_token_or_of_the_wrong_number_is_an_error(tmp_path):
    server = Server()
    with pytest.raises(ConfigError, match="2 servers need as many"):
        VLLMServerEngine(["http://a", "http://b"], receivers=["http://c"])
    guarded = with_token(weights_app(WeightsFolder(tmp_path)), "secret")
    async with at_a_port(server.app) as url, at_a_port(guarded) as beside:
        async with VLLMServerEngine([url], receivers=[beside]) as engine:
            with pytest.raises(ProviderFailure, match="401"):
                await engine.update_weights(make_weights(), 1)
        async with VLLMServerEngine([url], receivers=[beside], token="secret") as engine:
            await engine.update_weights(make_weights(), 1)
    assert_same_bits(server.loaded[0], rounded(make_weights()))


def folder_with(encoder, path):
    folder = WeightsFolder(path)
    folder.replace(WeightFiles(path).write(encoder.weights) / FILE, encoder.name)
    return folder


def test_deltas_out_of_order_damaged_or_of_another_run_are_refused_and_harm_nothing(tmp_path):
    encoder, other = Encoder(), Encoder()
    for each in (encoder, other):
        assert each.advance(make_weights()) is None
    folder = folder_with(encoder, tmp_path)
    first, second = encoder.advance(changed(make_weights(), 1)), encoder.advance(changed(make_weights(), 2))
    damaged = type(first)(first.name, first.data[:-1] + bytes([first.data[-1] ^ 1]))
    for wrong in (second, damaged, other.advance(changed(make_weights(), 1))):
        with pytest.raises(OtherWeights):
            folder.patch(wrong)
    folder.patch(first)
    with pytest.raises(OtherWeights):
        folder.patch(first)
    folder.patch(second)
    assert folder.name == encoder.name
    assert_same_bits(load_file(tmp_path / FILE), encoder.weights)


def test_a_file_that_vanished_is_not_taken_for_weights(tmp_path):
    encoder = Encoder()
    encoder.advance(make_weights())
    folder = folder_with(encoder, tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(OtherWeights, match="does not fit"):
        folder.patch(encoder.advance(changed(make_weights(), 1)))
    assert folder.name is None


def test_live_weights_may_change_in_place():
    weights, encoder = make_weights(), Encoder()
    encoder.advance(weights)
    weights["a"][5, 5] = 7.0
    delta = encoder.advance(weights)
    assert list(load(delta.data)) == ["a"]
    weights["a"][5, 5] = 8.0
    assert encoder.weights["a"][5, 5] == 7.0


def test_other_tensors_have_no_delta():
    encoder = Encoder("bfloat16")
    encoder.advance(make_weights())
    assert encoder.advance(make_weights() | {"c": torch.zeros(3)}) is None
    assert encoder.advance(make_weights()) is None
    assert encoder.advance(make_weights()).data == encoder.advance(make_weights()).data  # nothing changed, twice


def training_row(length=40):
    rng = np.random.default_rng(0)
    mask = np.arange(length) > 5
    return TrainingRow(
        rng.integers(3, 200, length).astype(np.int32),
        mask,
        np.where(mask, -3.0, 0).astype(np.float32),
        np.where(mask, 1.0, 0).astype(np.float32),
        mask.astype(np.float32),
        np.zeros(length, np.int32),
    )


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["full", "merged adapters"])
async def test_an_engine_generates_the_same_from_deltas_and_from_full_weights(tmp_path, lora):
    """Three steps of a learner in fp32, for an engine in bf16; the embedding is tied to the head."""
    tokenizer = make_tokenizer(["a few words"])
    learner = Learner(make_model(tokenizer), LearnerConfig(learning_rate=1e-3, lora=lora))
    encoder = Encoder("bfloat16")
    encoder.advance(learner.weights())
    folder = folder_with(encoder, tmp_path)
    for _ in range(3):
        learner.step([training_row()])
        folder.patch(encoder.advance(learner.weights()))
    results = []
    for weights in (load_file(tmp_path / FILE), learner.weights()):
        model = make_model(tokenizer).bfloat16()
        async with LocalEngine(model, max_batch=1, max_context=100) as engine:
            await engine.update_weights(weights, 1)
            request = GenerationRequest("a", np.arange(3, 20, dtype=np.int32), SamplingParams(max_tokens=30), 7)
            results.append(await engine.generate(request))
    assert np.array_equal(results[0].token_ids_R, results[1].token_ids_R)
    assert np.array_equal(results[0].logprobs_R, results[1].logprobs_R)


async def test_the_command_serves_until_it_is_stopped(tmp_path):
    command = ["agent-rl", "serve", "weights", "--port", "0", "--folder", str(tmp_path)]

    async with await anyio.open_process(
        [sys.executable, "-c", "from agent_rl.cli import main; main()", *command[1:]]
    ) as process:
        assert process.stderr is not None
        said = (await process.stderr.receive()).decode()
        url = next(word for word in said.split() if word.startswith("http://"))
        async with httpx.AsyncClient() as http:
            answer = await http.patch(f"{url}/weights", params={"name": "b"}, content=b"")
        assert answer.status_code == 409
        process.terminate()
        await process.wait()
    assert list(tmp_path.iterdir()) == []
