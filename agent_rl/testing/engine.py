"""Conformance kit for inference engines: `await check_engine(factory)` raises `AssertionError` for what is broken.

It checks what every engine promises (see `agent_rl.engine.base`), through the public contract alone, so that it runs
on an engine of your own as well. It does not know what model is behind the engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio
import numpy as np

from agent_rl.concurrency import collect
from agent_rl.engine.base import Engine, GenerationRequest
from agent_rl.types import FinishReason, Generation, IntArray, SamplingParams

_DEADLINE_S = 60.0
_ATTEMPTS = 3  # to interrupt a request, on a machine so busy that it may end before


async def check_engine(
    factory: Callable[[], Engine], *, prompt_ids: Sequence[int] = (1, 2, 3, 4), long_tokens: int = 200
) -> None:
    """Run every check on a fresh engine from `factory`.

    `prompt_ids` must be valid for the model; `long_tokens` more must fit its context, and take long enough to sample
    (some milliseconds) for a request to be interrupted. Raises `AssertionError`; `TimeoutError` when something hangs.
    """
    prompt_T = np.array(prompt_ids, dtype=np.int32)
    for check in _CHECKS:
        with anyio.fail_after(_DEADLINE_S):
            async with factory() as engine:
                await check(engine, prompt_T, long_tokens)


def check_generation(generation: Generation, sampling: SamplingParams) -> None:
    """What holds for every response: aligned arrays, log-probs at most 0, an end that agrees with its reason."""
    ids, reason = generation.token_ids_R.tolist(), generation.finish_reason
    assert len(generation.logprobs_R) == len(generation.weight_versions_R) == len(ids), "arrays of different lengths"
    assert np.isfinite(generation.logprobs_R).all(), "log-probs must be finite"
    assert (generation.logprobs_R <= 1e-6).all(), "log-probs must be at most 0"
    assert (np.diff(generation.weight_versions_R) >= 0).all(), "weight versions must not decrease within a response"
    assert len(ids) <= sampling.max_tokens, "more tokens than max_tokens"
    assert not set(ids[:-1]) & set(sampling.stop_token_ids), "sampled on behind a stop token"
    if reason is FinishReason.STOP and sampling.stop_token_ids and not sampling.stop:
        assert ids, "STOP without a token"
        assert ids[-1] in sampling.stop_token_ids, "STOP, but the last token is no stop token"
    if reason is FinishReason.LENGTH:
        assert not set(ids) & set(sampling.stop_token_ids), "LENGTH, but a stop token was sampled"


async def _generate(engine: Engine, session: str, prompt_T: IntArray, seed: int, **sampling: object) -> Generation:
    params = SamplingParams(**sampling)  # pyright: ignore[reportArgumentType]  # keyword arguments of this file
    generation = await engine.generate(GenerationRequest(session, prompt_T, params, seed))
    check_generation(generation, params)
    return generation


async def _length(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    for max_tokens in (1, 2, 9):
        generation = await _generate(engine, f"length-{max_tokens}", prompt_T, 0, max_tokens=max_tokens)
        if generation.finish_reason is FinishReason.LENGTH:
            assert len(generation.token_ids_R) == max_tokens, "LENGTH before max_tokens"


async def _stop(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    free = await _generate(engine, "free", prompt_T, 0, max_tokens=8, temperature=0.0)
    ids = free.token_ids_R.tolist()
    stop = ids[-1]
    end = ids.index(stop) + 1
    cut = await _generate(engine, "cut", prompt_T, 0, max_tokens=8, temperature=0.0, stop_token_ids=(stop,))
    assert cut.token_ids_R.tolist() == ids[:end], "a stop token must end the response and change nothing before it"
    assert cut.finish_reason is FinishReason.STOP, "a sampled stop token must give STOP"


async def _seeds(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    first = await _generate(engine, "seed-a", prompt_T, 7, max_tokens=8)
    again = await _generate(engine, "seed-b", prompt_T, 7, max_tokens=8)
    assert first.token_ids_R.tolist() == again.token_ids_R.tolist(), "the same request and seed gave another response"


async def _turns(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    context_T = prompt_T
    for turn in range(3):
        generation = await _generate(engine, "turns", context_T, turn, max_tokens=4)
        context_T = np.concatenate([context_T, generation.token_ids_R, prompt_T])
    await _generate(engine, "turns", prompt_T, 3, max_tokens=4)  # a rewritten history is allowed


async def _concurrent(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    alone = await _generate(engine, "alone", prompt_T, 3, max_tokens=6)

    async def one(seed: int) -> Generation:
        generation = await _generate(engine, f"concurrent-{seed}", prompt_T, seed, max_tokens=6)
        await engine.release(f"concurrent-{seed}")
        return generation

    many = await collect([lambda seed=seed: one(seed) for seed in range(16)])
    assert many[3].token_ids_R.tolist() == alone.token_ids_R.tolist(), "a response depends on what else runs"


async def _interrupted(
    engine: Engine, prompt_T: IntArray, long_tokens: int, interrupt: Callable[[str], Awaitable[None]]
) -> Generation:
    """The response to a long request that is interrupted after a moment; another one, where it had ended by then."""

    async def soon() -> None:
        await anyio.sleep(0.002)
        await interrupt("interrupted")

    async def long() -> Generation:
        return await _generate(engine, "interrupted", prompt_T, 0, max_tokens=long_tokens)

    for attempt in range(1, _ATTEMPTS + 1):
        generation, _ = await collect([long, soon])
        assert generation is not None
        if len(generation.token_ids_R) < long_tokens or attempt == _ATTEMPTS:
            return generation
    raise AssertionError("the last attempt returned")


async def _abort(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    await engine.abort("unknown")
    generation = await _interrupted(engine, prompt_T, long_tokens, engine.abort)
    assert generation.finish_reason is FinishReason.ABORT, "abort must end a running request with reason ABORT"
    assert len(generation.token_ids_R) < long_tokens, "an aborted response must be a partial one"
    context_T = np.concatenate([prompt_T, generation.token_ids_R])
    await _generate(engine, "interrupted", context_T, 1, max_tokens=2)


async def _release(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    await engine.release("unknown")
    generation = await _interrupted(engine, prompt_T, long_tokens, engine.release)
    assert generation.finish_reason is FinishReason.ABORT, "release must abort a running request"
    await engine.release("interrupted")
    await _generate(engine, "interrupted", prompt_T, 1, max_tokens=2)


async def _cancel(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    with anyio.move_on_after(0.002) as scope:
        await _generate(engine, "cancelled", prompt_T, 0, max_tokens=long_tokens)
    assert scope.cancelled_caught, "the request ended before it could be cancelled: raise long_tokens"
    await _generate(engine, "cancelled", prompt_T, 1, max_tokens=2)


async def _versions(engine: Engine, prompt_T: IntArray, long_tokens: int) -> None:
    before = engine.weight_version
    await engine.update_weights({}, before + 1)
    assert engine.weight_version == before + 1, "update_weights must set the version"
    generation = await _generate(engine, "version", prompt_T, 0, max_tokens=2)
    assert set(generation.weight_versions_R.tolist()) == {before + 1}, "tokens must carry the version in force"

    async def update(_: str) -> None:
        await engine.update_weights({}, before + 2)
        await engine.abort("interrupted")

    during = await _interrupted(engine, prompt_T, long_tokens, update)
    stamped = set(during.weight_versions_R.tolist())
    assert stamped <= {before + 1, before + 2}, "tokens must carry the version that each was sampled with"


_CHECKS = (_length, _stop, _seeds, _turns, _concurrent, _abort, _release, _cancel, _versions)
