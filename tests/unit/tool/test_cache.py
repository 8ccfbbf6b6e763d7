"""The cache of tool results: who shares what, one flight for equal calls, bounded size, and no effect on rewards."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.errors import ToolError, ToolFailure
from agent_rl.evaluate.harness import evaluate
from agent_rl.rollout.agent import OracleAgent, random_agent
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.testing.virtual_time import VIRTUAL_TIME
from agent_rl.tool import Toolset, run_tool_calls, tool
from agent_rl.tool.cache import CacheKey, Outcome, ToolCache
from agent_rl.tool.config import Cached, ToolsConfig
from agent_rl.tool.services import siblings_of, tool_services
from agent_rl.types import Group, ToolCall
from agent_rl_envs.sql_lookup import SqlLookup

pytestmark = pytest.mark.anyio
in_virtual_time = pytest.mark.parametrize("anyio_backend", [VIRTUAL_TIME])


def call(tool_name: str, **arguments: object) -> ToolCall:
    return ToolCall("1", tool_name, arguments)


def counting() -> tuple[Counter[str], Callable[[str], Awaitable[str]]]:
    ran: Counter[str] = Counter()

    async def work(name: str) -> str:
        ran[name] += 1
        answer = f"{name} {ran[name]}"
        await anyio.sleep(0.02)
        return answer

    return ran, work


# --- what is kept ---------------------------------------------------------------------------------------------------


async def test_pure_tools_run_once_for_equal_arguments():
    _, work = counting()

    @tool(effects="pure")
    async def compute(name: str, times: int = 1) -> str:
        return await work(name)

    async with tool_services(ToolsConfig()) as lent:
        first = await run_tool_calls([compute], [call("compute", name="a"), call("compute", name="a", times="2")])
        again = await run_tool_calls([compute], [call("compute", name="a"), call("compute", name="b")])
        assert lent.cache is not None
        metrics = lent.cache.metrics()
        assert lent.cache.metrics() == {}
    assert [result.content for result in first] == ["a 1", "a 2"]
    assert [result.content for result in again] == ["a 1", "b 1"]
    assert metrics["cache_hit_rate"] == 0.25
    assert 0.015 < metrics["cache_saved_s"] < 0.2


async def test_siblings_that_ask_at_once_share_one_flight():
    ran, work = counting()

    @tool(effects="pure")
    async def compute(name: str) -> str:
        return await work(name)

    async with tool_services(ToolsConfig()), anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(run_tool_calls, [compute], [call("compute", name="a")])
    assert ran == {"a": 1}


class Files(Toolset):
    """A state that its writer changes."""

    def __init__(self, ran: Counter[str], known: bool = True) -> None:
        self.version = 0
        self._ran = ran
        self._known = known

    @tool(effects="read_only")
    async def show(self) -> int:
        self._ran["show"] += 1
        return self.version

    @tool
    async def write(self) -> None:
        self._ran["write"] += 1
        self.version += 1

    def state_key(self) -> int | None:
        return self.version if self._known else None


@pytest.mark.parametrize(
    ("kinds", "known", "same_start", "shows"),
    [
        ("read_only", True, True, 2),
        ("read_only", False, True, 4),
        ("read_only", True, False, 4),
        ("pure", True, True, 4),
    ],
)
async def test_read_only_tools_share_among_siblings_in_one_state(
    kinds: Cached, known: bool, same_start: bool, shows: int
):
    ran: Counter[str] = Counter()
    async with tool_services(ToolsConfig(cache=kinds)):
        for episode in range(2):
            files = Files(ran, known)
            with siblings_of(("task", 0 if same_start else episode)):
                results = await run_tool_calls(files.tools, [call("show"), call("write"), call("show")])
            assert [result.content for result in results] == ["0", "null", "1"]
    assert ran == {"show": shows, "write": 2}


async def test_what_did_not_succeed_is_not_kept():
    ran: Counter[str] = Counter()

    @tool(effects="pure", timeout_s=0.05)
    async def compute(kind: str) -> str:
        ran[kind] += 1
        if kind == "late":
            await anyio.sleep_forever()
        raise ToolError("no") if kind == "mistake" else RuntimeError("broken")

    async with tool_services(ToolsConfig()) as lent:
        for _ in range(2):
            assert (await run_tool_calls([compute], [call("compute", kind="mistake")]))[0].error == "tool_error"
            assert (await run_tool_calls([compute], [call("compute", kind="late")]))[0].error == "timeout"
            with pytest.raises(ToolFailure):
                await run_tool_calls([compute], [call("compute", kind="crash")])
        assert lent.cache is not None
        assert lent.cache.size_bytes == 0
    assert ran == {"mistake": 2, "late": 2, "crash": 2}


@pytest.mark.parametrize("ends", ["mistake", "timeout"])
@in_virtual_time
async def test_after_a_failure_the_waiters_run_side_by_side(ends: str):
    """One after another they would wait for the sum of all attempts."""
    now = peak = 0

    @tool(effects="pure", timeout_s=0.1)
    async def compute() -> str:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        try:
            await anyio.sleep(0.02 if ends == "mistake" else 10)
        finally:
            now -= 1
        raise ToolError("no")

    async with tool_services(ToolsConfig()), anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(run_tool_calls, [compute], [call("compute")])
    assert peak == 3


@in_virtual_time
async def test_a_cancelled_leader_hands_over():
    began = 0
    results: list[str] = []

    @tool(effects="pure")
    async def compute() -> str:
        nonlocal began
        began += 1
        await anyio.sleep(0.1)
        return f"from attempt {began}"

    async def ask() -> None:
        results.append((await run_tool_calls([compute], [call("compute")]))[0].content)

    async with tool_services(ToolsConfig()), anyio.create_task_group() as tasks, anyio.create_task_group() as first:
        first.start_soon(ask)
        await anyio.sleep(0.02)
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.sleep(0.02)
        first.cancel_scope.cancel()
    assert results == ["from attempt 2"] * 3
    assert began == 2


async def test_the_least_recently_used_goes_first():
    cache = ToolCache("pure", max_bytes=5000)

    async def get(name: bytes) -> bool:
        ran = False

        async def run() -> Outcome:
            nonlocal ran
            ran = True
            return None, "x" * 1000

        await cache.get(CacheKey("tool", None, name), run)
        return ran

    assert [await get(name) for name in (b"a", b"b", b"c", b"a", b"d")] == [True, True, True, False, True]
    assert [await get(name) for name in (b"a", b"b")] == [False, True]
    assert 0 < cache.size_bytes <= 5000

    async def huge() -> Outcome:
        return None, "x" * 10_000

    assert (await cache.get(CacheKey("tool", None, b"huge"), huge))[1] == "x" * 10_000
    assert cache.size_bytes <= 5000


# --- bookkeeping under any schedule ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    key: int
    at: int
    gives_up_at: int
    takes: int
    ends: str


CALLERS = st.lists(
    st.builds(
        Caller,
        key=st.integers(0, 2),
        at=st.integers(0, 6),
        gives_up_at=st.integers(0, 12),
        takes=st.integers(0, 4),
        ends=st.sampled_from(["well", "well", "error", "raise"]),
    ),
    max_size=10,
)


@settings(max_examples=150)
@given(CALLERS, st.sampled_from([0, 3000, math.inf]))
def test_flights_are_kept_in_order(callers: list[Caller], max_bytes: float):
    cache = ToolCache("pure", max_bytes)  # pyright: ignore[reportArgumentType]
    succeeded, failed, running = set[int](), set[int](), Counter[int]()

    async def tick(count: int) -> None:
        for _ in range(count):
            await anyio.lowlevel.checkpoint()

    async def ask(caller: Caller) -> None:
        await tick(3 * caller.at)
        led = False

        async def run() -> Outcome:
            nonlocal led
            led = True
            assert not (caller.key in succeeded and max_bytes == math.inf), "what is kept was run again"
            assert not running[caller.key] or caller.key in failed, "two flights at once, though none failed"
            running[caller.key] += 1
            try:
                await tick(3 * caller.takes)
            finally:
                running[caller.key] -= 1
            if caller.ends == "raise":
                failed.add(caller.key)
                raise OSError
            if caller.ends == "error":
                failed.add(caller.key)
                return "tool_error", "no"
            succeeded.add(caller.key)
            return None, f"result of {caller.key}"

        try:
            outcome = await cache.get(CacheKey("tool", None, str(caller.key).encode()), run)
        except OSError:
            assert led
            assert caller.ends == "raise", "a failure that is another's"
        else:
            own_error = led and caller.ends == "error"
            assert outcome == (("tool_error", "no") if own_error else (None, f"result of {caller.key}"))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for caller in callers:
                tasks.start_soon(with_patience, caller)

    async def with_patience(caller: Caller) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, caller)
            await tick(3 * (caller.at + caller.gives_up_at))
            tasks.cancel_scope.cancel()

    anyio.run(main)
    assert cache._flights == {}  # pyright: ignore[reportPrivateUsage]
    assert cache.size_bytes <= max_bytes
    if max_bytes == math.inf:
        assert (cache.size_bytes > 0) == bool(succeeded)


# --- it makes no difference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["oracle", "random"])
async def test_rewards_are_equal_with_and_without(agent: str):
    tasks = SqlLookup.tasks("test", 6)

    async def play(cache: Cached) -> tuple[list[object], dict[str, float]]:
        groups: dict[int, Group] = {}
        report = await evaluate(
            lambda task: SqlLookup(),
            tasks,
            (lambda environment, key: OracleAgent(environment)) if agent == "oracle" else random_agent,
            limits=RolloutLimits(),
            samples=4,
            on_group=lambda group: groups.update({group.index: group}),
            tools=ToolsConfig(cache=cache),
        )
        played = [
            (episode.reward, [(turn.action, turn.observations, turn.state_key) for turn in episode.turns])
            for index in sorted(groups)
            for episode in groups[index].trajectories
        ]
        return played, dict(report.tool_metrics)

    without, none = await play("off")
    cached, metrics = await play("read_only")
    assert cached == without
    if agent == "oracle":
        assert {reward for reward, _ in cached} == {1.0}
    assert none == {}
    assert metrics["cache_hit_rate"] > 0.4
