"""The client of chat endpoints, against our own server: answers, retries, and whose fault a failure is."""

from contextlib import asynccontextmanager

import pytest

from agent_rl.chat.wire import message_to_wire
from agent_rl.engine.openai import OpenAIClient
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.errors import ConfigError, ProviderFailure
from agent_rl.gateway.server import Gateway
from agent_rl.rollout.agent import EpisodeKey
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import FinishReason, Message, Owner, SamplingParams

pytestmark = pytest.mark.anyio
ASKED = [message_to_wire(Message("user", "Count to 2."))]
CALL = '<tool_call>\n{"name": "add", "arguments": {"amount": 2}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
SAMPLING = SamplingParams(max_tokens=50)


@asynccontextmanager
async def client_of(engine, codec, limits=None, attempts=3):
    async with (
        engine,
        Gateway(engine, codec, SamplingParams()) as gateway,
        gateway.episode(EpisodeKey(0, "t", 0), limits) as recording,
        OpenAIClient("m", recording.base_url, max_attempts=attempts, retry_delay_s=0.001) as client,
    ):
        yield client, recording


def failing(engine, times):
    failures = [ConnectionError("refused")] * times

    def respond(request):
        if failures:
            raise failures.pop()
        return engine._respond(request)

    return ScriptedEngine(respond)


async def test_what_the_client_sends_back_continues_the_conversation(codec, saying):
    async with client_of(saying(f"I add.\n{CALL}", "done"), codec) as (client, recording):
        first = await client.complete(ASKED, TOOLS, SAMPLING, seed=1)
        assert (first.message.content, first.finish_reason) == ("I add.", FinishReason.STOP)
        (call,) = first.message.tool_calls
        assert (call.name, call.arguments, call.error) == ("add", {"amount": 2}, None)
        result = message_to_wire(Message("tool", "2", tool_call_id=call.id))
        last = await client.complete([*ASKED, first.echo, result], TOOLS, SAMPLING, seed=2)
    assert last.message.content == "done"
    assert len(recording.segments()) == 1, "the echo is the same history"
    counted = last.usage.prompt_tokens + last.usage.sampled_tokens
    assert counted == len(recording.segments()[0].token_ids_T)
    assert client.stats.requests == 2


async def test_server_errors_are_tried_again_and_then_the_providers(codec, saying):
    async with client_of(failing(saying("hello"), 2), codec) as (client, _):
        assert (await client.complete(ASKED, (), SAMPLING, seed=1)).message.content == "hello"
        assert (client.stats.requests, client.stats.retries) == (3, 2)
    async with client_of(failing(saying("hello"), 9), codec) as (client, _):
        with pytest.raises(ProviderFailure, match=r"refused.* \(3 attempts\)") as caught:
            await client.complete(ASKED, (), SAMPLING, seed=1)
        assert (caught.value.kind, caught.value.owner, caught.value.retryable) == ("server_error", Owner.PROVIDER, True)


async def test_a_full_context_is_the_policys_limit(codec, saying):
    limits = RolloutLimits(max_context_tokens=100, max_response_tokens=50)
    async with client_of(saying("hello"), codec, limits) as (client, _):
        long = [message_to_wire(Message("user", "again " * 300))]
        answer = await client.complete(long, (), SAMPLING, seed=1)
    assert (answer.finish_reason, answer.message.content) == (FinishReason.LENGTH, "")


async def test_what_the_user_has_to_mend_is_said_at_once(codec, saying):
    async with client_of(saying("hello"), codec) as (client, recording):
        elsewhere = OpenAIClient("m", recording.base_url.replace("/e/", "/f/"), retry_delay_s=0.001)
        async with elsewhere:
            with pytest.raises(ConfigError, match="Check the base URL"):
                await elsewhere.complete(ASKED, (), SAMPLING, seed=1)
        assert elsewhere.stats.requests == 1
        with pytest.raises(ConfigError, match="neither top_k"):
            await client.complete(ASKED, (), SamplingParams(top_k=3), seed=1)
    with pytest.raises(ConfigError, match="must start with http"):
        OpenAIClient("m", "localhost:8000")


async def test_a_server_that_is_gone_is_a_lost_connection():
    async with OpenAIClient("m", "http://127.0.0.1:9", max_attempts=2, retry_delay_s=0.001) as client:
        with pytest.raises(ProviderFailure) as caught:
            await client.complete(ASKED, (), SAMPLING, seed=1)
    assert caught.value.kind == "connection"
