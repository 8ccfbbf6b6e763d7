"""The shell of the local engine: abort, release, cancellation, leaving, failures. Nothing leaks and nothing hangs."""

import anyio
import numpy as np
import pytest
from transformers import PreTrainedModel

from agent_rl.concurrency import collect
from agent_rl.engine import GenerationRequest
from agent_rl.engine.local import LocalEngine, scheduler
from agent_rl.engine.local.scheduler import Scheduler
from agent_rl.errors import ConfigError, ModelError
from agent_rl.types import FinishReason, SamplingParams

VOCAB = 97
pytestmark = pytest.mark.anyio


def request(session: str, prompt: int = 8, seed: int = 0, max_tokens: int = 500) -> GenerationRequest:
    ids = np.random.default_rng(seed).integers(0, VOCAB, prompt).astype(np.int32)
    return GenerationRequest(session, ids, SamplingParams(max_tokens=max_tokens), seed)


async def until(condition) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # counters have no event
            await anyio.sleep(0.001)


@pytest.fixture
def engine(qwen3: PreTrainedModel) -> LocalEngine:
    return LocalEngine(qwen3, max_batch=4, max_context=600)


async def test_abort_returns_what_was_sampled_and_keeps_the_cache(engine: LocalEngine) -> None:
    async def stop() -> None:
        await until(lambda: engine.stats.decode_tokens >= 10)
        await engine.abort("a")

    async with engine:
        partial, _ = await collect([lambda: engine.generate(request("a")), stop])
        assert partial.finish_reason is FinishReason.ABORT
        assert 10 <= len(partial.token_ids_R) < 500
        # The same seed and the same prompt: what an abort returned is a prefix of the whole.
        whole = await engine.generate(request("b", max_tokens=len(partial.token_ids_R) + 1))
        assert partial.token_ids_R.tolist() == whole.token_ids_R[:-1].tolist()
        context_T = np.concatenate([request("a").prompt_ids_T, partial.token_ids_R])
        before = engine.stats.prefill_tokens
        await engine.generate(GenerationRequest("a", context_T, SamplingParams(max_tokens=1), 1))
        assert engine.stats.prefill_tokens == before + 1


async def test_abort_of_a_waiting_request_returns_nothing_sampled(qwen3: PreTrainedModel) -> None:
    async def stop() -> None:
        await until(lambda: engine.running_requests == 2)
        await engine.abort("late")
        await engine.abort("early")

    async with LocalEngine(qwen3, max_batch=1, max_context=600) as engine:
        calls = [lambda: engine.generate(request("early")), lambda: engine.generate(request("late")), stop]
        _, late, _ = await collect(calls)
        assert (late.finish_reason, len(late.token_ids_R)) == (FinishReason.ABORT, 0)
        assert len(late.logprobs_R) == len(late.weight_versions_R) == 0
        assert engine.stats.aborted == 2


async def test_nobody_waits_for_a_prefill_that_was_aborted(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sibling waits while another computes their common prompt; when that is aborted half-way, it goes on itself."""
    monkeypatch.setattr(scheduler, "_PREFILL_TOKENS", 16)

    async def stop() -> None:
        await until(lambda: engine.stats.prefill_tokens > 0)
        await engine.abort("first")

    async with engine:
        calls = [
            lambda name=name: engine.generate(request(name, prompt=500, max_tokens=2)) for name in ("first", "second")
        ]
        with anyio.fail_after(20):
            first, second, _ = await collect([*calls, stop])
        assert (first.finish_reason, len(first.token_ids_R)) == (FinishReason.ABORT, 0)
        assert len(second.token_ids_R) == 2
        assert engine.stats.copied_tokens + engine.stats.prefill_tokens >= 500


async def test_cancellation_frees_the_row(engine: LocalEngine) -> None:
    async with engine, anyio.create_task_group() as tasks:
        tasks.start_soon(engine.generate, request("a"))
        await until(lambda: engine.stats.decode_tokens >= 3)
        assert engine.resident_sessions == 1
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await until(lambda: engine.running_requests == engine.resident_sessions == 0)
            sampled = engine.stats.decode_tokens
            await anyio.sleep(0.02)
            assert engine.stats.decode_tokens == sampled


async def test_waiting_requests_start_in_order(qwen3: PreTrainedModel) -> None:
    ended: list[int] = []

    async def one(member: int) -> None:
        await engine.generate(request(str(member), seed=member, max_tokens=3))
        await engine.release(str(member))
        ended.append(member)

    async with LocalEngine(qwen3, max_batch=1, max_context=600) as engine:
        await collect([lambda member=member: one(member) for member in range(8)])
    assert ended == list(range(8))


async def test_idle_engine_does_not_step(engine: LocalEngine) -> None:
    async with engine:
        await engine.generate(request("a", max_tokens=3))
        steps = engine.stats.steps
        await anyio.sleep(0.05)
        assert engine.stats.steps == steps


async def test_many_sessions_with_random_aborts_leave_nothing_behind(engine: LocalEngine) -> None:
    """200 sessions over 4 rows: some are aborted, some cancelled, some released while they run."""

    async def session(member: int) -> None:
        rng = np.random.default_rng(member)
        name = f"s{member}"
        try:
            for turn in range(int(rng.integers(1, 4))):
                wanted = request(name, prompt=int(rng.integers(1, 40)), seed=member + turn, max_tokens=12)
                with anyio.move_on_after(float(rng.choice([0.005, 0.05, 20]))):
                    await engine.generate(wanted)
        finally:
            with anyio.CancelScope(shield=True):
                await engine.release(name)

    async def troublemaker() -> None:
        rng = np.random.default_rng(0)
        for _ in range(100):
            await anyio.sleep(0.003)
            victim = f"s{int(rng.integers(200))}"
            await (engine.abort if rng.random() < 0.5 else engine.release)(victim)

    async with engine:
        with anyio.fail_after(120):
            await collect([*(lambda member=member: session(member) for member in range(200)), troublemaker])
        await until(lambda: engine.running_requests == 0)
        assert engine.resident_sessions == 0
        assert engine.stats.requests >= 200
        assert engine.stats.aborted > 0
        # The engine is as good as new.
        again = await engine.generate(request("again", max_tokens=5))
        assert len(again.token_ids_R) == 5


async def test_leaving_ends_running_requests(engine: LocalEngine) -> None:
    async def body() -> None:
        async with engine, anyio.create_task_group() as tasks:
            tasks.start_soon(engine.generate, request("a"))
            await until(lambda: engine.stats.decode_tokens >= 1)
            raise ValueError("the body failed")

    with anyio.fail_after(20), pytest.raises(ExceptionGroup) as caught:
        await body()
    assert caught.group_contains(ValueError, match="the body failed", depth=1)
    assert engine.running_requests == engine.resident_sessions == 0
    with pytest.raises(RuntimeError, match="not running"):
        await engine.generate(request("a"))
    await engine.release("a")
    await engine.abort("a")


async def test_an_engine_can_be_entered_again(engine: LocalEngine) -> None:
    sampled: list[list[int]] = []
    for _ in range(2):
        async with engine:
            generation = await engine.generate(request("a", max_tokens=5))
            sampled.append(generation.token_ids_R.tolist())
        assert engine.resident_sessions == 0
    assert sampled[0] == sampled[1]


async def test_a_caller_outside_of_the_block_is_told_when_the_engine_stops(engine: LocalEngine) -> None:
    errors: list[BaseException | None] = []

    async def outsider() -> None:
        with pytest.raises(RuntimeError, match="engine stopped") as caught:
            await engine.generate(request("a"))
        errors.append(caught.value)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks, engine:
            tasks.start_soon(outsider)
            await until(lambda: engine.stats.decode_tokens >= 1)
    assert len(errors) == 1
    assert engine.stats.decode_tokens < 500


async def test_errors_of_the_body_leave_as_they_are(engine: LocalEngine) -> None:
    with pytest.raises(ConfigError, match="at least one token"):
        async with engine:
            await engine.generate(request("a", prompt=0))


async def test_a_bug_in_a_step_stops_the_run_with_its_traceback(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Scheduler) -> None:
        raise ZeroDivisionError("a bug")

    async def body() -> None:
        async with engine:
            await engine.generate(request("a", max_tokens=2))
            monkeypatch.setattr(Scheduler, "step", broken)
            await collect([lambda: engine.generate(request("a")), lambda: anyio.sleep(100)])

    with anyio.fail_after(20), pytest.raises(ZeroDivisionError, match="a bug") as caught:
        await body()
    assert any(entry.name == "broken" for entry in caught.traceback)


async def test_diverged_weights_are_named(tiny_model) -> None:
    model = tiny_model("qwen3")

    async def body() -> None:
        async with LocalEngine(model, max_batch=1, max_context=64) as engine:
            broken = {name: weight * float("nan") for name, weight in model.state_dict().items()}
            await engine.update_weights(broken, 7)
            await engine.generate(request("a", max_tokens=2))

    with pytest.raises(ModelError, match="NaN with weights version 7"):
        await body()
