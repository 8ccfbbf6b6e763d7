"""Running the calls of one message: results, mistakes of the model, blame, deadlines, order and concurrency."""

import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rl.errors import ToolError, ToolFailure
from agent_rl.testing.virtual_time import VIRTUAL_TIME
from agent_rl.tool import run_tool_calls, tool
from agent_rl.types import Owner, ToolCall

pytestmark = pytest.mark.anyio
in_virtual_time = pytest.mark.parametrize("anyio_backend", [VIRTUAL_TIME])


@tool(effects="read_only")
async def look_up(key: str, limit: int = 10, order: Literal["asc", "desc"] = "asc") -> str:
    """Look a key up."""
    return f"{key} {limit} {order}"


@dataclass
class Point:
    title: str
    x: int = 0


def call(tool_name: str, id: str = "1", /, **arguments: Any) -> ToolCall:
    return ToolCall(id, tool_name, arguments)


# --- results --------------------------------------------------------------------------------------------------------


async def test_text_is_passed_on_and_other_values_become_json():
    @tool
    async def echo(kind: str) -> Any:
        return {"text": 'a "b" é', "data": {"x": [1, None]}, "point": Point("a", 1)}[kind]

    calls = [call("echo", str(i), kind=kind) for i, kind in enumerate(("text", "data", "point"))]
    results = await run_tool_calls([echo], calls)
    assert [r.content for r in results] == ['a "b" é', '{"x":[1,null]}', '{"title":"a","x":1}']
    assert [r.call for r in results] == calls


@given(st.text(max_size=60), st.integers(1, 40))
def test_long_output_keeps_both_ends_and_says_what_is_missing(text: str, limit: int):
    @tool(max_output_chars=limit)
    async def long() -> str:
        return text

    (result,) = anyio.run(run_tool_calls, [long], [call("long")])
    if len(text) <= limit:
        assert result.content == text
    else:
        tail = limit // 2
        head, cut = limit - tail, len(text) - limit
        assert result.content == f"{text[:head]}\n[... {cut} characters cut ...]\n{text[head + cut :]}"


async def test_arguments_are_converted_where_the_meaning_is_clear():
    (result,) = await run_tool_calls([look_up], [call("look_up", key="k", limit="3")])
    assert (result.error, result.content) == (None, "k 3 asc")


# --- mistakes of the model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "error", "content"),
    [
        (ToolCall("1", "", {}, error="The call is not JSON."), "parse_error", "The call is not JSON."),
        (call("lookup"), "unknown_tool", "There is no tool 'lookup'. Did you mean 'look_up'? Tools: look_up."),
        (call("look_up"), "bad_arguments", "Bad arguments for look_up: missing argument 'key'"),
        (
            call("look_up", key="k", limt=3),
            "bad_arguments",
            "Bad arguments for look_up: unknown argument 'limt'. Did you mean 'limit'?",
        ),
        (
            call("look_up", key="k", limit="many"),
            "bad_arguments",
            "Bad arguments for look_up: argument 'limit': Input should be a valid integer, "
            "unable to parse string as an integer, got 'many'",
        ),
        (
            call("look_up", key=1, order="up"),
            "bad_arguments",
            "Bad arguments for look_up: argument 'key': Input should be a valid string, got 1; "
            "argument 'order': Input should be 'asc' or 'desc', got 'up'",
        ),
    ],
)
async def test_mistakes_come_back_as_text(mistake: ToolCall, error: str, content: str):
    (result,) = await run_tool_calls([look_up], [mistake])
    assert (result.error, result.content) == (error, content)


async def test_arguments_that_are_no_object_are_a_mistake():
    (result,) = await run_tool_calls([look_up], [ToolCall("1", "look_up", ["k"])])  # pyright: ignore
    assert result.error == "bad_arguments"
    assert "got ['k']" in result.content


async def test_an_explanation_stays_short_and_on_one_line():
    (result,) = await run_tool_calls([look_up], [call("look_up", key="k", limit="x\n" * 5000)])
    assert len(result.content) < 400
    assert "\n" not in result.content


async def test_tool_errors_are_for_the_model():
    @tool(max_output_chars=10)
    async def picky() -> str:
        raise ToolError("no such table: " + "x" * 100)

    (result,) = await run_tool_calls([picky], [call("picky")])
    assert result.error == "tool_error"
    assert result.content.startswith("no su\n[... 105 characters cut")


# --- failures of the tool -------------------------------------------------------------------------------------------


async def test_any_other_exception_is_the_tools_failure():
    @tool(effects="read_only")
    async def broken(x: int) -> str:
        return str(1 / x)

    for calls in ([call("broken", x=0)], [call("broken", x=1), call("broken", x=0)]):
        with pytest.raises(ToolFailure, match="tool broken: ZeroDivisionError: division by zero") as caught:
            await run_tool_calls([broken], calls)
        failure = caught.value.record()
        assert (failure.owner, failure.kind, failure.stage) == (Owner.TOOL, "crash", "tool broken")
        assert "return str(1 / x)" in failure.traceback


async def test_output_that_is_not_json_is_the_tools_failure():
    @tool
    async def opaque() -> object:
        return object()

    with pytest.raises(ToolFailure, match="tool opaque: PydanticSerializationError"):
        await run_tool_calls([opaque], [call("opaque")])


async def test_a_timeout_of_its_own_making_is_the_tools_failure():
    @tool
    async def upstream() -> str:
        raise TimeoutError

    with pytest.raises(ToolFailure) as caught:
        await run_tool_calls([upstream], [call("upstream")])
    assert caught.value.kind == "timeout"


# --- deadlines ------------------------------------------------------------------------------------------------------


async def test_an_endless_async_tool_is_stopped():
    stopped = False

    @tool(timeout_s=0.05)
    async def forever() -> str:
        nonlocal stopped
        try:
            await anyio.sleep_forever()
        finally:
            stopped = True
        return ""

    (result,) = await run_tool_calls([forever], [call("forever")])
    assert (result.error, result.content) == ("timeout", "forever was stopped: it took longer than 0.05 s.")
    assert stopped
    assert result.duration_s >= 0.04


async def test_an_endless_sync_tool_does_not_hold_the_episode():
    release = threading.Event()

    @tool(timeout_s=0.05)
    def block() -> str:
        release.wait(30)
        return "late"

    started = time.perf_counter()
    (result,) = await run_tool_calls([block], [call("block")])
    release.set()
    assert result.error == "timeout"
    assert 0.05 <= result.duration_s <= time.perf_counter() - started < 20


@in_virtual_time
async def test_the_deadline_does_not_count_the_wait_for_a_turn():
    @tool(timeout_s=1, max_concurrency=1, effects="read_only")
    async def slow() -> str:
        await anyio.sleep(0.3)
        return "done"

    began = anyio.current_time()
    results = await run_tool_calls([slow], [call("slow")] * 4)
    assert [r.error for r in results] == [None] * 4
    assert anyio.current_time() - began == pytest.approx(1.2)


@in_virtual_time
async def test_cancelling_the_caller_cancels_the_tool():
    stopped = anyio.Event()

    @tool
    async def forever() -> str:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()
        return ""

    with anyio.move_on_after(0.05) as scope:
        await run_tool_calls([forever], [call("forever")])
    assert scope.cancelled_caught
    assert stopped.is_set()


# --- order and concurrency ------------------------------------------------------------------------------------------


class Recorder:
    """Notes which calls overlapped."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.now = self.peak = 0

    async def work(self, name: str) -> str:
        self.now += 1
        self.peak = max(self.peak, self.now)
        self.events.append(f"+{name}")
        await anyio.sleep(0.02 if name == "a" else 0.01)
        self.events.append(f"-{name}")
        self.now -= 1
        return name


@in_virtual_time
async def test_read_only_calls_run_concurrently_and_keep_their_order():
    recorder = Recorder()

    @tool(effects="read_only")
    async def read(name: str) -> str:
        return await recorder.work(name)

    results = await run_tool_calls([read], [call("read", name=name) for name in "abc"])
    assert [r.content for r in results] == ["a", "b", "c"]
    assert recorder.peak == 3


async def test_a_mutating_call_puts_the_whole_message_in_order():
    recorder = Recorder()

    @tool(effects="pure")
    async def read(name: str) -> str:
        return await recorder.work(name)

    @tool
    async def write(name: str) -> str:
        return await recorder.work(name)

    calls = [call("read", name="a"), call("write", name="b"), call("nothing"), call("read", name="c")]
    results = await run_tool_calls([read, write], calls)
    assert [r.error for r in results] == [None, None, "unknown_tool", None]
    assert recorder.events == ["+a", "-a", "+b", "-b", "+c", "-c"]


@in_virtual_time
async def test_the_concurrency_limit_holds_across_bound_copies():
    recorder = Recorder()

    class Desk:
        @tool(max_concurrency=2, effects="read_only")
        async def work(self, name: str) -> str:
            return await recorder.work(name)

    async with anyio.create_task_group() as tasks:
        for name in "abcdef":
            tasks.start_soon(run_tool_calls, [Desk().work], [call("work", name=name)])
    assert recorder.peak == 2


def test_a_tool_with_a_limit_serves_one_event_loop_after_another():
    @tool(max_concurrency=1, effects="read_only")
    async def slow() -> str:
        await anyio.sleep(0.001)
        return "done"

    for _ in range(2):
        results = anyio.run(run_tool_calls, [slow], [call("slow")] * 3)
        assert [r.content for r in results] == ["done"] * 3


async def test_sync_tools_run_in_threads_side_by_side():
    barrier = threading.Barrier(3)

    @tool(timeout_s=20, effects="read_only")
    def meet() -> int:
        barrier.wait(10)
        return threading.get_ident()

    results = await run_tool_calls([meet], [call("meet")] * 3)
    assert len({r.content for r in results}) == 3
    assert str(threading.get_ident()) not in {r.content for r in results}


@tool
async def plan(steps: list[int], note: str = "", limit: int | None = None) -> str:
    """Say what came."""
    return f"{steps} {note!r} {limit}"


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        ({"steps": "[1, 2]"}, "[1, 2] '' None"),
        ({"steps": "[1]", "note": "[2]", "limit": "null"}, "[1] '[2]' None"),  # text stays text where text is wanted
        ({"steps": [3], "limit": "7"}, "[3] '' 7"),
    ],
)
async def test_formats_without_types_give_text_that_is_read_as_json(arguments, content):
    (result,) = await run_tool_calls([plan], [ToolCall("1", "plan", arguments)])
    assert (result.error, result.content) == (None, content)


@pytest.mark.parametrize("steps", ["[1, 2", "one", '{"a": 1}', "[" * 100_000])
async def test_text_that_is_no_such_json_is_the_models_mistake(steps):
    (result,) = await run_tool_calls([plan], [ToolCall("1", "plan", {"steps": steps})])
    assert result.error == "bad_arguments"
    assert "'steps'" in result.content
