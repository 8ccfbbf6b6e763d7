"""Declared limits: retries, rates, and how much of an output the model reads."""

import time

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rl.chat.quoting import QuotingEncoder
from agent_rl.errors import ToolError, ToolFailure, UserError
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.tool import run_tool_calls, tool
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import byte_ends, tool_services
from agent_rl.types import ToolCall

pytestmark = pytest.mark.anyio
TOKENIZER = make_tokenizer(["The quick brown fox jumps over the lazy dog. " * 5], vocab_size=400)
ENDS = QuotingEncoder(TOKENIZER.backend_tokenizer).ends


# --- retries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("faults", "attempts"), [(0, 1), (2, 3), (3, 3)])
async def test_infrastructure_failures_are_tried_again(faults: int, attempts: int):
    calls: list[float] = []

    @tool(effects="read_only", retries=2)
    async def flaky() -> str:
        calls.append(time.monotonic())
        if len(calls) <= faults:
            raise OSError("connection reset")
        return "done"

    if faults > 2:
        with pytest.raises(ToolFailure, match="connection reset"):
            await run_tool_calls([flaky], [ToolCall("1", "flaky", {})])
    else:
        (result,) = await run_tool_calls([flaky], [ToolCall("1", "flaky", {})])
        assert result.content == "done"
    assert len(calls) == attempts
    if attempts == 3:
        assert calls[2] - calls[1] > 1.5 * 0.1  # it waits longer each time


async def test_what_the_model_did_wrong_is_not_tried_again():
    calls: list[int] = []

    @tool(effects="pure", retries=3)
    async def strict() -> str:
        calls.append(1)
        raise ToolError("no")

    (result,) = await run_tool_calls([strict], [ToolCall("1", "strict", {})])
    assert (result.error, len(calls)) == ("tool_error", 1)


async def test_a_timeout_is_not_tried_again():
    calls: list[int] = []

    @tool(effects="pure", retries=3, timeout_s=0.05)
    async def stuck() -> str:
        calls.append(1)
        await anyio.sleep_forever()
        return ""

    (result,) = await run_tool_calls([stuck], [ToolCall("1", "stuck", {})])
    assert (result.error, len(calls)) == ("timeout", 1)


def test_a_mutating_tool_cannot_be_tried_again():
    with pytest.raises(UserError, match="Tool 'pay' cannot have retries: a mutating call that failed may have"):

        @tool(retries=1)
        def pay() -> None: ...


# --- rates ----------------------------------------------------------------------------------------------------------


async def test_a_rate_holds_over_all_episodes():
    starts: list[float] = []

    class Desk:
        @tool(effects="read_only", max_per_second=20)
        async def ask(self) -> str:
            starts.append(time.monotonic())
            return ""

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(run_tool_calls, [Desk().ask], [ToolCall("1", "ask", {})] * 2)
    assert len(starts) == 6
    assert starts[-1] - starts[0] >= 5 / 20 * 0.95


def test_a_rate_serves_one_event_loop_after_another():
    @tool(max_per_second=10)
    async def ask() -> str:
        return "done"

    for _ in range(2):
        began = time.monotonic()
        assert anyio.run(run_tool_calls, [ask], [ToolCall("1", "ask", {})])[0].content == "done"
        assert time.monotonic() - began < 5


# --- outputs --------------------------------------------------------------------------------------------------------


async def read(text: str, most_tokens: int | None, most_chars: int = 16_000, run_tokens: int | None = None) -> str:
    @tool(max_output_tokens=most_tokens, max_output_chars=most_chars)
    async def show() -> str:
        return text

    async with tool_services(ToolsConfig(max_output_tokens=run_tokens), ENDS):
        return (await run_tool_calls([show], [ToolCall("1", "show", {})]))[0].content


def tokens(text: str) -> int:
    return len(TOKENIZER.encode(text, add_special_tokens=False))


@given(st.text(max_size=200), st.integers(1, 60))
def test_both_ends_are_kept_in_tokens(text: str, limit: int):
    content = anyio.run(read, text, limit)
    if tokens(text) <= limit:
        assert content == text
        return
    head_tokens, tail_tokens = limit - limit // 2, limit // 2
    head, tail = ENDS(text, head_tokens, tail_tokens)
    assert content == f"{text[:head]}\n[... {tail - head} characters cut ...]\n{text[tail:]}"
    assert tokens(text[:head]) <= head_tokens + 1  # cut off, the last word may fall into other pieces
    assert tokens(text[tail:]) <= tail_tokens + 1


@pytest.mark.parametrize("text", ["é" * 50, "日本語" * 30, "👩‍👩‍👧" * 20, "a\ud800b" * 30])
@pytest.mark.parametrize("limit", range(1, 12))
async def test_no_character_is_split(text: str, limit: int):
    content = await read(text, limit)
    head, _, rest = content.partition("\n[... ")
    assert text.startswith(head)
    assert text.endswith(rest.partition("]\n")[2])
    assert "\ufffd" not in content


async def test_limits_in_characters_and_tokens_make_one_cut():
    text = "The quick brown fox. " * 100
    content = await read(text, 20, most_chars=1000)
    assert content.count("characters cut") == 1
    head, _, tail = content.partition("\n[... ")
    cut = int(tail.split()[0])
    assert len(head) + cut + len(tail.partition("]\n")[2]) == len(text)
    assert tokens(head) <= 11


async def test_the_run_lowers_what_a_tool_allows():
    text = "The quick brown fox. " * 100
    assert await read(text, None, run_tokens=10) == await read(text, 10)
    assert await read(text, 5, run_tokens=10) == await read(text, 5)
    assert await read("short", None, run_tokens=10) == "short"


async def test_special_tokens_in_an_output_count_as_the_text_that_they_are():
    text = "<|im_end|>" * 40
    content = await read(text, 10)
    assert len(content) < len(text)


async def test_without_a_tokenizer_a_token_is_four_bytes():
    @tool(max_output_tokens=2)
    async def show() -> str:
        return "é" * 10

    (result,) = await run_tool_calls([show], [ToolCall("1", "show", {})])
    assert result.content == "éé\n[... 6 characters cut ...]\néé"
    assert byte_ends("aéa", 0, 1) == (3, 3)


async def test_the_cost_is_linear():
    def cost(size: int) -> float:
        text = "The quick brown fox. " * (size // 20)
        began = time.process_time()
        ENDS(text, 10, 10)
        return time.process_time() - began

    cost(1000)
    small, large = min(cost(20_000) for _ in range(5)), min(cost(200_000) for _ in range(3))
    assert large < 40 * small
