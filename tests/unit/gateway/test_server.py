"""The official client against the gateway, over a scripted engine."""

import json
from contextlib import asynccontextmanager

import anyio
import httpx
import numpy as np
import openai
import pytest

from agent_rl.concurrency import collect
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.errors import ConfigError
from agent_rl.gateway.server import Gateway
from agent_rl.rollout.agent import EpisodeKey
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import SamplingParams, StopReason

pytestmark = pytest.mark.anyio

KEY = EpisodeKey(seed=3, task_id="task", member=1)
CALL = '<tool_call>\n{"name": "add", "arguments": {"amount": 2}}\n</tool_call>'
PARAMETERS = {"type": "object", "properties": {"amount": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": PARAMETERS}}]
ASKED = [{"role": "system", "content": "You count."}, {"role": "user", "content": "Count to 3."}]


@asynccontextmanager
async def serving(engine, codec, limits=None, retries=0, **options):
    """A recording, and a client that is pointed at it."""
    async with (
        engine,
        Gateway(engine, codec, SamplingParams(), **options) as gateway,
        gateway.episode(KEY, limits) as recording,
        openai.AsyncOpenAI(base_url=recording.base_url, api_key=recording.api_key, max_retries=retries) as client,
    ):
        yield recording, client.chat.completions, gateway


async def agent_loop(completions, messages, **options) -> list:
    """What every agent program does: ask, run the tools, ask again, until there is an answer."""
    messages = list(messages)
    while True:
        message = (await completions.create(model="any", messages=messages, tools=TOOLS, **options)).choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return messages
        for call in message.tool_calls:
            total = json.loads(call.function.arguments)["amount"]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": f"The total is {total}."})


async def test_an_agent_program_is_recorded_as_one_row_of_the_sampled_tokens(codec, saying, text_of):
    engine = saying(f"I add.\n{CALL}", CALL, "done")
    async with serving(engine, codec) as (recording, completions, gateway):
        messages = await agent_loop(completions, ASKED)
        assert gateway.open_episodes == 1
        assert engine.resident_sessions == 1
    assert (engine.resident_sessions, gateway.open_episodes) == (0, 0)
    (segment,) = recording.segments()
    turns = recording.turns()
    assert messages[-1]["content"] == "done"
    assert [turn.action.content for turn in turns] == ["I add.", "", "done"]
    assert [len(turn.action.tool_calls) for turn in turns] == [1, 1, 0]
    assert [[m.content for m in turn.observations] for turn in turns] == [["The total is 2."]] * 2 + [[]]
    assert len({call.id for turn in turns for call in turn.action.tool_calls}) == 2, "ids are unique in an episode"
    assert text_of(segment).endswith(
        f"<|im_start|>assistant\n[I add.\n{CALL}<|im_end|>]\n<|im_start|>user\n<tool_response>\nThe total is 2.\n"
        f"</tool_response><|im_end|>\n<|im_start|>assistant\n[{CALL}<|im_end|>]\n<|im_start|>user\n<tool_response>\n"
        "The total is 2.\n</tool_response><|im_end|>\n<|im_start|>assistant\n[done<|im_end|>]"
    )
    for turn in turns:
        spans = segment.rollout_logprobs_T[turn.start : turn.end]
        assert spans.tolist() == (-np.arange(1, turn.end - turn.start + 1)).tolist()
        assert (segment.weight_versions_T[turn.start : turn.end] == 0).all()
    assert sum(turn.end - turn.start for turn in turns) == engine.sampled_tokens == segment.response_mask_T.sum()


async def test_streaming_gives_the_same_message_and_the_same_record(codec, saying):
    streamed, plain = [], []
    async with serving(saying(f"I add.\n{CALL}"), codec) as (one, completions, _):
        options = {"stream": True, "stream_options": {"include_usage": True}}
        async for chunk in await completions.create(model="m", messages=ASKED, tools=TOOLS, **options):
            streamed.append(chunk)
    async with serving(saying(f"I add.\n{CALL}"), codec) as (other, completions, _):
        plain = await completions.create(model="m", messages=ASKED, tools=TOOLS)
    choices = [chunk.choices[0] for chunk in streamed if chunk.choices]
    (call,) = [call for choice in choices for call in choice.delta.tool_calls or ()]
    assert "".join(choice.delta.content or "" for choice in choices) == plain.choices[0].message.content
    expected = plain.choices[0].message.tool_calls[0].function
    assert (call.function.name, call.function.arguments) == (expected.name, expected.arguments)
    assert choices[-1].finish_reason == plain.choices[0].finish_reason == "tool_calls"
    assert streamed[-1].usage == plain.usage
    assert plain.usage.total_tokens == len(one.segments()[0].token_ids_T)
    assert np.array_equal(one.segments()[0].token_ids_T, other.segments()[0].token_ids_T)


async def test_a_program_that_hangs_up_ends_the_generation(codec, saying):
    engine = saying("hello", latency_s=60.0)
    async with serving(engine, codec) as (recording, completions, _):
        with pytest.raises(openai.APITimeoutError):
            await completions.create(model="m", messages=ASKED, timeout=0.3)
        with anyio.fail_after(5):
            while engine.running_requests:  # noqa: ASYNC110  # the engine has no event for it
                await anyio.sleep(0.01)
        assert recording.stats.cancelled == 1
        assert recording.failure is None
    assert recording.turns() == recording.segments() == ()
    assert engine.resident_sessions == 0


async def test_the_end_of_the_episode_ends_its_requests(codec, saying):
    engine = saying("hello", latency_s=60.0)
    async with engine, Gateway(engine, codec, SamplingParams()) as gateway:
        async with anyio.create_task_group() as tasks, gateway.episode(KEY) as recording:
            client = openai.AsyncOpenAI(base_url=recording.base_url, api_key="-", max_retries=0)

            async def ask():
                with pytest.raises(openai.NotFoundError, match="over"):
                    await client.chat.completions.create(model="m", messages=ASKED)

            tasks.start_soon(ask)
            while not engine.running_requests:  # noqa: ASYNC110  # the engine has no event for it
                await anyio.sleep(0.01)
        assert engine.running_requests == engine.resident_sessions == 0
        with pytest.raises(openai.NotFoundError, match="over"):
            await client.chat.completions.create(model="m", messages=ASKED)
        await client.close()


async def test_limits_of_the_episode_are_errors_that_no_client_retries(codec, saying):
    async with serving(saying(CALL), codec, RolloutLimits(max_turns=3), retries=2) as (recording, completions, _):
        with pytest.raises(openai.BadRequestError) as refused:
            await agent_loop(completions, ASKED)
    assert refused.value.code == recording.stop_reason == StopReason.MAX_TURNS
    assert (len(recording.turns()), recording.stats.refused) == (3, 1)


async def test_a_full_context_is_openais_error_and_compaction_gets_around_it(codec, saying, text_of):
    limits = RolloutLimits(max_context_tokens=200, max_response_tokens=50)
    async with serving(saying("hello"), codec, limits) as (recording, completions, _):
        long = [*ASKED, {"role": "user", "content": "again " * 300}]
        with pytest.raises(openai.BadRequestError) as refused:
            await completions.create(model="m", messages=long)
        assert refused.value.code == "context_length_exceeded"
        assert recording.stop_reason is StopReason.MAX_TOKENS
        await completions.create(model="m", messages=ASKED)
        assert recording.stop_reason is None
    assert len(recording.segments()) == 1


async def test_too_many_tool_calls_are_not_handed_out(codec, saying):
    async with serving(saying(CALL), codec, RolloutLimits(max_tool_calls=1)) as (recording, completions, _):
        with pytest.raises(openai.BadRequestError, match="max_tool_calls"):
            await agent_loop(completions, ASKED)
    assert len(recording.turns()) == 2, "the call too many was sampled, so it is recorded"
    assert recording.stop_reason is StopReason.MAX_TOOL_CALLS


async def test_a_failure_of_the_engine_is_retried_by_the_client_and_forgotten_once_answered(codec, saying):
    healthy, failures = saying("hello"), [ConnectionError("refused")]

    def respond(request):
        if failures:
            raise failures.pop()
        return healthy._respond(request)

    async with serving(ScriptedEngine(respond), codec, retries=1) as (recording, completions, _):
        answer = await completions.create(model="m", messages=ASKED)
        assert (answer.choices[0].message.content, recording.failure) == ("hello", None)
        impatient = completions._client.with_options(max_retries=0).chat.completions
        failures.append(ConnectionError("refused again"))
        with pytest.raises(openai.InternalServerError):
            await impatient.create(model="m", messages=[*ASKED, ASKED[1]])
    assert "refused again" in str(recording.failure)
    assert len(recording.turns()) == 1


async def test_an_engine_that_hangs_is_the_providers_timeout(codec, saying):
    limits = RolloutLimits(generation_timeout_s=0.2)
    async with serving(saying("hello", latency_s=60.0), codec, limits) as (recording, completions, _):
        with pytest.raises(openai.InternalServerError, match="timed out"):
            await completions.create(model="m", messages=ASKED)
    assert (recording.failure.kind, recording.failure.owner) == ("timeout", "provider")


async def test_a_bug_of_ours_is_an_error_to_the_program_and_kept_for_the_run(codec):
    class Broken(ScriptedEngine):
        async def generate(self, request):
            return None

    async with serving(Broken(lambda request: []), codec) as (recording, completions, _):
        with pytest.raises(openai.InternalServerError):
            await completions.create(model="m", messages=ASKED)
    assert isinstance(recording.bug, AttributeError)


async def test_the_runs_sampling_holds_unless_the_program_may_choose(codec, saying):
    for program_samples, expected in ((False, 1.0), (True, 0.0)):
        asked = []
        engine = saying("hello")
        generate = engine.generate

        async def spy(request, asked=asked, generate=generate):
            asked.append(request.sampling)
            return await generate(request)

        engine.generate = spy
        async with serving(engine, codec, program_samples=program_samples) as (recording, completions, _):
            await completions.create(model="m", messages=ASKED, temperature=0, max_tokens=2, stop=["x"])
        (sampling,) = asked
        assert (sampling.temperature, sampling.max_tokens, sampling.stop) == (expected, 2, ("x",))
        assert recording.stats.sampling_overridden == (not program_samples)
        assert recording.turns()[0].finish_reason == "length"


async def test_episodes_are_apart_and_paths_are_checked(codec, saying):
    engine = saying("hello")
    async with (
        engine,
        Gateway(engine, codec, SamplingParams()) as gateway,
        gateway.episode(KEY) as one,
        gateway.episode(KEY) as other,
        httpx.AsyncClient() as http,
    ):
        assert one.base_url != other.base_url
        for recording in (one, other):
            body = {"model": "m", "messages": ASKED}
            reply = await http.post(f"{recording.base_url}/chat/completions", json=body)
            assert reply.status_code == 200
        assert (await http.get(f"{one.base_url}/models")).json()["data"][0]["id"] == "policy"
        for path, method in (("responses", "POST"), ("chat/completions", "GET")):
            error = (await http.request(method, f"{one.base_url}/{path}")).json()["error"]
            assert "is not offered" in error["message"]
        missing = await http.get(one.base_url.replace("/e/", "/e/x") + "/models")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "episode_over")
    assert [len(recording.turns()) for recording in (one, other)] == [1, 1]
    assert one.segments()[0].token_ids_T.tolist() == other.segments()[0].token_ids_T.tolist()


async def test_many_programs_at_once_and_nothing_is_left(codec, saying):
    engine = saying(CALL, *[CALL] * 200, "done", latency_s=0.01)
    async with engine, Gateway(engine, codec, SamplingParams()) as gateway:

        async def one(member: int):
            async with (
                gateway.episode(EpisodeKey(0, "task", member), RolloutLimits(max_turns=4)) as recording,
                openai.AsyncOpenAI(base_url=recording.base_url, api_key="-") as client,
            ):
                with pytest.raises(openai.BadRequestError):
                    await agent_loop(client.chat.completions, ASKED)
            return recording

        recordings = await collect([lambda member=member: one(member) for member in range(20)])
    assert [len(recording.turns()) for recording in recordings] == [4] * 20
    assert (engine.resident_sessions, engine.running_requests, gateway.open_episodes) == (0, 0, 0)


async def test_a_taken_port_is_named(codec, saying):
    async with Gateway(saying("x"), codec, SamplingParams()) as gateway:
        port = int(gateway._url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"{port}"):
            async with Gateway(saying("x"), codec, SamplingParams(), port=port):
                pass
