"""What the local engine computes: log-probs, counters, cache reuse, stops, weights, determinism."""

import anyio
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from agent_rl.concurrency import collect
from agent_rl.engine import GenerationRequest
from agent_rl.engine.local import LocalEngine
from agent_rl.engine.local import scheduler as scheduler_module
from agent_rl.errors import ConfigError, ModelError
from agent_rl.types import FinishReason, Generation, IntArray, SamplingParams

VOCAB = 97
pytestmark = pytest.mark.anyio


def ids(seed: int, count: int) -> IntArray:
    return np.random.default_rng(seed).integers(0, VOCAB, count).astype(np.int32)


def request(session: str, prompt_T: IntArray, seed: int = 0, **sampling: object) -> GenerationRequest:
    return GenerationRequest(session, prompt_T, SamplingParams(**sampling), seed)


def joined(*parts: IntArray) -> IntArray:
    return np.concatenate(parts).astype(np.int32)


@torch.no_grad()
def trained_logprobs(model: PreTrainedModel, prompt_T: IntArray, response_R: IntArray, temperature: float) -> IntArray:
    """What a trainer computes: one plain forward over the whole row, fp32."""
    row = torch.from_numpy(joined(prompt_T, response_R)[None].astype(np.int64))
    logprobs = (model(row).logits[0].float() / temperature).log_softmax(-1)
    taken = logprobs[len(prompt_T) - 1 : -1].gather(-1, torch.from_numpy(response_R.astype(np.int64))[:, None])
    return taken[:, 0].numpy()


async def test_decode_logprobs_are_training_logprobs(model: PreTrainedModel) -> None:
    """Sessions of different lengths join and leave at different steps, over several turns, with evictions."""

    async def episode(engine: LocalEngine, member: int) -> float:
        rng = np.random.default_rng(member)
        context_T = ids(member, int(rng.integers(2, 60)))
        worst = 0.0
        for turn in range(3):
            sampling = {"temperature": float(rng.choice([0.6, 1.0, 1.3])), "max_tokens": int(rng.integers(1, 30))}
            top = {"top_k": 20, "top_p": 0.9} if member % 2 else {}
            generation = await engine.generate(request(f"s{member}", context_T, turn, **sampling, **top))
            expected = trained_logprobs(model, context_T, generation.token_ids_R, sampling["temperature"])
            worst = max(worst, float(np.abs(expected - generation.logprobs_R).max()))
            context_T = joined(context_T, generation.token_ids_R, ids(turn, int(rng.integers(1, 20))))
        return worst

    async with LocalEngine(model, max_batch=6, max_context=512) as engine:
        errors = await collect([lambda member=member: episode(engine, member) for member in range(20)])
        assert engine.stats.evictions > 0
    assert max(errors) < 1e-4


async def test_only_new_tokens_are_prefilled(qwen3: PreTrainedModel) -> None:
    async with LocalEngine(qwen3, max_batch=2, max_context=256) as engine:
        context_T, expected = ids(0, 20), 20
        for turn in range(4):
            generation = await engine.generate(request("a", context_T, turn, max_tokens=7))
            assert engine.stats.prefill_tokens == expected
            observation_T = ids(turn, 5)
            context_T = joined(context_T, generation.token_ids_R, observation_T)
            expected += 1 + len(observation_T)  # the last sampled token has no keys and values yet
        stats = engine.stats
        assert stats.decode_tokens == 4 * 7
        assert stats.reused_tokens == sum(20 + 12 * turn - 6 for turn in range(1, 4))


async def test_rewritten_history_keeps_the_common_prefix(qwen3: PreTrainedModel) -> None:
    async with LocalEngine(qwen3, max_batch=2, max_context=256) as engine:
        prompt_T = ids(0, 30)
        first = await engine.generate(request("a", prompt_T, max_tokens=10))
        before = engine.stats
        rewritten_T = joined(prompt_T[:25], (prompt_T[25:] + 1) % VOCAB, first.token_ids_R)
        generation = await engine.generate(request("a", rewritten_T, max_tokens=10))
        assert engine.stats.reused_tokens - before.reused_tokens == 25
        assert engine.stats.prefill_tokens - before.prefill_tokens == len(rewritten_T) - 25
        before = engine.stats
        again = await engine.generate(request("a", rewritten_T, max_tokens=10))  # the same prompt once more: a retry
        assert engine.stats.prefill_tokens - before.prefill_tokens == 1
        assert again.token_ids_R.tolist() == generation.token_ids_R.tolist()
    expected = trained_logprobs(qwen3, rewritten_T, generation.token_ids_R, 1.0)
    assert np.abs(expected - generation.logprobs_R).max() < 1e-4


async def test_siblings_copy_their_prompt(qwen3: PreTrainedModel) -> None:
    prompt_T = ids(0, 50)

    async def sample(engine: LocalEngine, member: int) -> Generation:
        return await engine.generate(request(f"s{member}", prompt_T, member, max_tokens=8))

    async with LocalEngine(qwen3, max_batch=8, max_context=256) as engine:
        together = await collect([lambda member=member: sample(engine, member) for member in range(8)])
        assert engine.stats.prefill_tokens == 50 + 7
        assert engine.stats.copied_tokens == 7 * 49
    for member, shared in enumerate(together):
        async with LocalEngine(qwen3, max_batch=1, max_context=256) as engine:
            alone = await sample(engine, member)
        assert shared.token_ids_R.tolist() == alone.token_ids_R.tolist()
        assert np.abs(shared.logprobs_R - alone.logprobs_R).max() < 1e-5


async def test_an_evicted_source_passes_its_row_on(qwen3: PreTrainedModel) -> None:
    """With one row, the only source of a shared prefix is the session that has to go."""
    prompt_T = ids(0, 40)
    async with LocalEngine(qwen3, max_batch=1, max_context=256) as engine:
        await engine.generate(request("a", prompt_T, 1, max_tokens=5))
        generation = await engine.generate(request("b", prompt_T, 2, max_tokens=5))
        assert engine.stats.evictions == 1
        assert engine.stats.copied_tokens == 39
        assert engine.resident_sessions == 1
    expected = trained_logprobs(qwen3, prompt_T, generation.token_ids_R, 1.0)
    assert np.abs(expected - generation.logprobs_R).max() < 1e-4


async def test_keys_of_older_weights_are_not_copied(tiny_model) -> None:
    prompt_T = ids(0, 40)
    async with LocalEngine(tiny_model("qwen3"), max_batch=4, max_context=256) as engine:
        await engine.generate(request("old", prompt_T, max_tokens=2))
        await engine.update_weights({}, 1)
        await engine.generate(request("new", prompt_T, max_tokens=2))
        assert engine.stats.copied_tokens == 0
        await engine.generate(request("newer", prompt_T, max_tokens=2))
        assert engine.stats.copied_tokens == 39


async def test_greedy_is_what_transformers_generates(model: PreTrainedModel) -> None:
    prompts = [ids(seed, 5 + 9 * seed) for seed in range(4)]

    async def sample(engine: LocalEngine, member: int) -> Generation:
        return await engine.generate(request(f"s{member}", prompts[member], max_tokens=24, temperature=0.0))

    async with LocalEngine(model, max_batch=4, max_context=128) as engine:
        sampled = await collect([lambda member=member: sample(engine, member) for member in range(4)])
    for prompt_T, generation in zip(prompts, sampled, strict=True):
        row = torch.from_numpy(prompt_T[None].astype(np.int64))
        expected = model.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=24, do_sample=False, pad_token_id=0
        )
        assert generation.token_ids_R.tolist() == expected[0, len(prompt_T) :].tolist()
        # The log-prob of a greedy token is that at temperature 1.
        plain = trained_logprobs(model, prompt_T, generation.token_ids_R, 1.0)
        assert np.abs(plain - generation.logprobs_R).max() < 1e-4


async def test_long_prompts_are_prefilled_in_parts(qwen3: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts interleave with the decoding of others, and change nothing."""
    monkeypatch.setattr(scheduler_module, "_PREFILL_TOKENS", 24)
    prompts = [ids(seed, length) for seed, length in enumerate((100, 7, 55, 90, 24, 25))]

    async def sample(engine: LocalEngine, member: int) -> Generation:
        return await engine.generate(request(f"s{member}", prompts[member], member, max_tokens=12))

    async with LocalEngine(qwen3, max_batch=6, max_context=512) as engine:
        sampled = await collect([lambda member=member: sample(engine, member) for member in range(6)])
        assert engine.stats.prefill_tokens == sum(map(len, prompts))
        assert engine.stats.prefill_steps >= 100 // 24
    for prompt_T, generation in zip(prompts, sampled, strict=True):
        expected = trained_logprobs(qwen3, prompt_T, generation.token_ids_R, 1.0)
        assert np.abs(expected - generation.logprobs_R).max() < 1e-4


async def test_rows_grow_with_the_context(qwen3: PreTrainedModel) -> None:
    async with LocalEngine(qwen3, max_batch=3, max_context=1000) as engine:
        short = await engine.generate(request("short", ids(0, 250), max_tokens=20))  # crosses the first capacity, 256
        long = await engine.generate(request("long", ids(1, 900), max_tokens=200))
    assert len(short.token_ids_R) == 20
    assert (len(long.token_ids_R), long.finish_reason) == (100, FinishReason.LENGTH)  # max_context
    for prompt_T, generation in ((ids(0, 250), short), (ids(1, 900), long)):
        expected = trained_logprobs(qwen3, prompt_T, generation.token_ids_R, 1.0)
        assert np.abs(expected - generation.logprobs_R).max() < 1e-4


# --- seeds and determinism --------------------------------------------------------------------------------------------


async def play(engine: LocalEngine, members: int) -> list[list[tuple[list[int], list[float]]]]:
    """Two turns of `members` episodes, four siblings to a prompt, each response exactly as sampled."""

    async def episode(member: int) -> list[tuple[list[int], list[float]]]:
        context_T, turns = joined(ids(99, 16), ids(member // 4, 4)), []
        for turn in range(2):
            wanted = request(f"s{member}", context_T, 10 * member + turn, max_tokens=5, stop_token_ids=(3,))
            generation = await engine.generate(wanted)
            turns.append((generation.token_ids_R.tolist(), generation.logprobs_R.tolist()))
            context_T = joined(context_T, generation.token_ids_R, ids(member + turn, 4))
            await anyio.sleep(0.002 * (member % 3))  # a tool
        await engine.release(f"s{member}")
        return turns

    return await collect([lambda member=member: episode(member) for member in range(members)])


@pytest.mark.parametrize("members", [8, pytest.param(64, marks=pytest.mark.slow)])
async def test_deterministic_mode_is_bit_identical_for_any_concurrency(qwen3: PreTrainedModel, members: int) -> None:
    """Whatever runs beside it, is evicted, copied or prefilled in parts, a response is the same to the last bit."""
    runs = []
    for max_batch in (1, members):
        async with LocalEngine(qwen3, max_batch=max_batch, max_context=128, deterministic=True) as engine:
            runs.append(await play(engine, members))
            assert (engine.stats.evictions > 0) == (max_batch < members)
            assert engine.stats.copied_tokens > 0
    assert runs[0] == runs[1]


async def test_seed_decides_the_sample(qwen3: PreTrainedModel) -> None:
    async with LocalEngine(qwen3, max_batch=4, max_context=128) as engine:
        sampled = [
            await engine.generate(request(f"s{n}", ids(0, 9), seed, max_tokens=12)) for n, seed in enumerate((1, 1, 2))
        ]
    first, again, other = (generation.token_ids_R.tolist() for generation in sampled)
    assert first == again
    assert first != other


# --- stops ------------------------------------------------------------------------------------------------------------


class Letters:
    """A tokenizer of one letter for each token; some tokens are two."""

    def decode(self, token_ids: list[int]) -> str:
        return "".join("xy" if token % 10 == 9 else chr(97 + token % 20) for token in token_ids)


async def test_stop_strings_end_the_response_and_stay_in_it(qwen3: PreTrainedModel) -> None:
    async with LocalEngine(qwen3, max_batch=2, max_context=256, tokenizer=Letters()) as engine:
        free = await engine.generate(request("a", ids(0, 9), max_tokens=40, temperature=0.0))
        tokens = free.token_ids_R.tolist()
        text = Letters().decode(tokens)
        stop = text[7:10]
        end = next(n for n in range(len(tokens) + 1) if stop in Letters().decode(tokens[:n]))
        cut = await engine.generate(request("b", ids(0, 9), max_tokens=40, temperature=0.0, stop=("~~", stop)))
    assert cut.token_ids_R.tolist() == tokens[:end]
    assert cut.finish_reason is FinishReason.STOP


async def test_stop_token_wins_over_length(qwen3: PreTrainedModel) -> None:
    async with LocalEngine(qwen3, max_batch=2, max_context=256) as engine:
        free = await engine.generate(request("a", ids(0, 9), max_tokens=6, temperature=0.0))
        last = int(free.token_ids_R[-1])
        end = free.token_ids_R.tolist().index(last) + 1
        sampling = {"max_tokens": end, "temperature": 0.0, "stop_token_ids": (last,)}
        cut = await engine.generate(request("b", ids(0, 9), **sampling))
    assert (len(cut.token_ids_R), cut.finish_reason) == (end, FinishReason.STOP)


# --- weights ----------------------------------------------------------------------------------------------------------


async def test_weights_are_swapped_between_two_steps_of_a_running_request(tiny_model) -> None:
    old, new = tiny_model("qwen3", seed=1), tiny_model("qwen3", seed=2)
    prompt_T = ids(0, 12)
    async with LocalEngine(old, max_batch=2, max_context=600) as engine:
        results: list[Generation] = []

        async def long() -> None:
            results.append(await engine.generate(request("a", prompt_T, max_tokens=400)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(long)
            while engine.stats.decode_tokens < 5:  # noqa: ASYNC110  # counters have no event
                await anyio.sleep(0.001)
            await engine.update_weights(new.state_dict(), 3)
            assert engine.weight_version == 3
        versions = results[0].weight_versions_R
        assert set(versions.tolist()) == {0, 3}
        assert (np.diff(versions) >= 0).all()
        after = await engine.generate(request("b", ids(5, 10), max_tokens=8))
    expected = trained_logprobs(new, ids(5, 10), after.token_ids_R, 1.0)
    assert np.abs(expected - after.logprobs_R).max() < 1e-4
    assert set(after.weight_versions_R.tolist()) == {3}


async def test_bad_weights_are_refused(tiny_model) -> None:
    async with LocalEngine(tiny_model("qwen3"), max_batch=1, max_context=64) as engine:
        with pytest.raises(ConfigError, match=r"lm_head\.weights.*Did you mean 'lm_head\.weight'"):
            await engine.update_weights({"lm_head.weights": torch.zeros(1)}, 1)
        with pytest.raises(ConfigError, match=r"shape \[1\], expected \[97, 64\]"):
            await engine.update_weights({"lm_head.weight": torch.zeros(1)}, 1)
        await engine.update_weights({}, 4)
        with pytest.raises(ConfigError, match="older"):
            await engine.update_weights({}, 3)


async def test_dropout_of_a_shared_training_module_is_off(tiny_model) -> None:
    model = tiny_model("llama")
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    async with LocalEngine(model, max_batch=1, max_context=64) as engine:
        model.train()
        generation = await engine.generate(request("a", ids(0, 9), max_tokens=8))
    expected = trained_logprobs(model.eval(), ids(0, 9), generation.token_ids_R, 1.0)
    assert np.abs(expected - generation.logprobs_R).max() < 1e-4


# --- requests and models that cannot be served ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "sampling", "message"),
    [
        (0, {}, "at least one token"),
        (5, {"max_tokens": 0}, "max_tokens of at least 1"),
        (64, {}, "max_context is 64"),
        (5, {"stop": ("x",)}, "pass tokenizer="),
    ],
)
async def test_impossible_requests_are_refused(qwen3: PreTrainedModel, prompt, sampling, message) -> None:
    async with LocalEngine(qwen3, max_batch=1, max_context=64) as engine:
        with pytest.raises(ConfigError, match=message):
            await engine.generate(request("a", ids(0, prompt), **sampling))


async def test_two_requests_of_one_session_are_refused(qwen3: PreTrainedModel) -> None:
    async with LocalEngine(qwen3, max_batch=2, max_context=600) as engine, anyio.create_task_group() as tasks:
        tasks.start_soon(engine.generate, request("a", ids(0, 5), max_tokens=500))
        await anyio.sleep(0.01)
        with pytest.raises(ConfigError, match="already generating"):
            await engine.generate(request("a", ids(0, 5)))
        await engine.abort("a")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"max_position_embeddings": 100}, ConfigError, "at most 100"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, ModelError, "sliding_attention"),
        ({"attn_implementation": "flex_attention"}, ConfigError, "attn_implementation='sdpa'"),
    ],
)
def test_models_that_cannot_be_served_are_refused(changes, error, message) -> None:
    config = Qwen3Config(
        **{"vocab_size": 8, "hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 2, "head_dim": 32}
        | {"num_attention_heads": 2, "num_key_value_heads": 1}
        | changes
    )
    with pytest.raises(error, match=message):
        LocalEngine(Qwen3ForCausalLM(config), max_batch=1, max_context=512)
