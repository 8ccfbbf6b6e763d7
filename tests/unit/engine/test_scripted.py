import anyio
import numpy as np
import pytest

from agent_rl.concurrency import collect
from agent_rl.engine import GenerationRequest, ScriptedEngine
from agent_rl.errors import ConfigError
from agent_rl.testing.virtual_time import VIRTUAL_TIME
from agent_rl.types import FinishReason, SamplingParams

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return VIRTUAL_TIME


def request(session: str = "a", **sampling: object) -> GenerationRequest:
    return GenerationRequest(session, np.array([1, 2], dtype=np.int32), SamplingParams(**sampling), 0)


@pytest.mark.parametrize(
    ("script", "sampling", "expected", "reason"),
    [
        ([5, 6, 7], {}, [5, 6, 7], FinishReason.STOP),
        ([5, 6, 7], {"max_tokens": 2}, [5, 6], FinishReason.LENGTH),
        ([5, 6, 7], {"max_tokens": 3}, [5, 6, 7], FinishReason.LENGTH),
        ([5, 6, 7, 8], {"stop_token_ids": (6, 8)}, [5, 6], FinishReason.STOP),
        ([5, 6, 7], {"stop_token_ids": (7,), "max_tokens": 3}, [5, 6, 7], FinishReason.STOP),
        ([5, 6, 7], {"stop_token_ids": (7,), "max_tokens": 2}, [5, 6], FinishReason.LENGTH),
        ([], {}, [], FinishReason.STOP),
    ],
)
async def test_scripts_are_cut_at_stop_tokens_and_limits(script, sampling, expected, reason) -> None:
    async with ScriptedEngine(lambda _: script) as engine:
        generation = await engine.generate(request(**sampling))
    assert generation.token_ids_R.tolist() == expected
    assert generation.finish_reason is reason
    assert generation.logprobs_R.tolist() == [0.0] * len(expected)
    assert generation.weight_versions_R.tolist() == [0] * len(expected)


async def test_logprobs_and_versions() -> None:
    async with ScriptedEngine(lambda _: [5, 6], logprobs=lambda _, ids: [-float(i) for i in ids]) as engine:
        await engine.update_weights({}, 3)
        generation = await engine.generate(request())
        with pytest.raises(ConfigError, match="older"):
            await engine.update_weights({}, 2)
    assert generation.logprobs_R.tolist() == [-5.0, -6.0]
    assert generation.weight_versions_R.tolist() == [3, 3]


async def test_abort_returns_the_part_that_came() -> None:
    async def stop() -> None:
        await anyio.sleep(0.1)
        await engine.abort("a")

    async with ScriptedEngine(lambda _: range(100), latency_s=0.4) as engine:
        generation, _ = await collect([lambda: engine.generate(request()), stop])
    assert generation.finish_reason is FinishReason.ABORT
    assert 10 <= len(generation.token_ids_R) < 100
    assert generation.token_ids_R.tolist() == list(range(len(generation.token_ids_R)))


async def test_counts_return_to_zero() -> None:
    async with ScriptedEngine(lambda _: [1], latency_s=30.0) as engine:
        with anyio.move_on_after(0.01):
            await engine.generate(request("cancelled"))
        assert engine.running_requests == engine.resident_sessions == 0

        async def stop() -> None:
            await anyio.sleep(0.01)
            assert engine.running_requests == 1
            with pytest.raises(ConfigError, match="already generating"):
                await engine.generate(request("released"))
            await engine.release("released")

        await collect([lambda: engine.generate(request("released")), stop])
        assert engine.running_requests == engine.resident_sessions == 0
        assert engine.requests == 2


async def test_other_tasks_run_during_a_response_without_latency() -> None:
    turns: list[str] = []

    async def one(name: str) -> None:
        for _ in range(3):
            await engine.generate(request(name))
            turns.append(name)

    async with ScriptedEngine(lambda _: [1]) as engine:
        await collect([lambda: one("a"), lambda: one("b")])
    assert turns == ["a", "b"] * 3
