"""Deadlines that move, on asyncio and on trio's clock."""

import math
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
import trio.testing

from agent_rl.concurrency import Deadline, Keeper, shielded
from agent_rl.testing.virtual_time import VIRTUAL_TIME

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[VIRTUAL_TIME, ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})])
def anyio_backend(request):
    return request.param


async def test_a_deadline_cancels_its_block():
    with anyio.fail_after(5), Deadline() as deadline:
        deadline.move(deadline.now() + 0.01)
        await anyio.sleep(60)
    assert deadline.cancelled_caught
    assert deadline.cancel_called


async def test_moved_later_it_cancels_later():
    began = anyio.current_time()
    with anyio.fail_after(5), Deadline() as deadline:
        deadline.move(began + 0.01)
        deadline.move(began + 0.1)
        await anyio.sleep(60)
    assert anyio.current_time() - began >= 0.1
    assert deadline.cancelled_caught


async def test_moved_earlier_it_cancels_earlier():
    with anyio.fail_after(5), Deadline() as deadline:
        deadline.move(deadline.now() + 60)
        deadline.move(deadline.now() + 0.01)
        await anyio.sleep(60)
    assert deadline.cancelled_caught


async def test_a_lifted_deadline_never_cancels():
    with Deadline() as deadline:
        deadline.move(deadline.now() + 0.01)
        deadline.move(math.inf)
        await anyio.sleep(0.05)
    assert not deadline.cancel_called


async def test_it_is_over_with_its_block():
    with Deadline() as deadline:
        deadline.move(deadline.now() + 0.01)
    await anyio.sleep(0.05)
    assert not deadline.cancel_called


async def test_a_deadline_in_the_past_cancels_at_the_next_wait():
    with anyio.fail_after(5), Deadline() as deadline:
        deadline.move(deadline.now() - 1)
        await anyio.sleep(60)
    assert deadline.cancelled_caught


# --- what is held open ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def service(log, *, leaving_s=0.0):
    """Something with a task of its own, which serves as long as it is open."""

    async def serve():
        try:
            await anyio.sleep_forever()
        finally:
            log.append("stopped")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await anyio.lowlevel.checkpoint()
        try:
            yield "value"
        finally:
            await anyio.sleep(leaving_s)
            tasks.cancel_scope.cancel()


async def test_what_is_held_outlives_those_who_use_it_when_all_is_cancelled():
    log = []
    with anyio.fail_after(5), anyio.move_on_after(0.05):
        async with anyio.create_task_group() as tasks:
            keeper = Keeper(tasks)
            try:
                assert await keeper.shared("key", lambda: service(log)) == "value"
                try:
                    await anyio.sleep_forever()
                finally:
                    async with shielded(1):
                        await anyio.sleep(0.05)
                        log.append("episode closed")
            finally:
                await keeper.close(1)
    assert log == ["episode closed", "stopped"]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_does_not_end_in_time_is_cancelled(cancelled):
    log = []
    began = anyio.current_time()
    with anyio.fail_after(5), anyio.move_on_after(0.05 if cancelled else math.inf):
        async with anyio.create_task_group() as tasks:
            keeper = Keeper(tasks)
            try:
                await keeper.open(service(log, leaving_s=60))
                if cancelled:
                    await anyio.sleep_forever()
            finally:
                await keeper.close(0.05)
    assert log == ["stopped"]
    assert anyio.current_time() - began < 2


async def test_what_opens_to_its_end_for_somebody_who_has_gone_is_left_again():
    log = []

    @asynccontextmanager
    async def stubborn():
        async with shielded(5):
            await anyio.sleep(0.1)
        log.append("entered")
        try:
            yield
        finally:
            log.append("left")

    with anyio.fail_after(5), anyio.move_on_after(0.03):
        async with anyio.create_task_group() as tasks:
            keeper = Keeper(tasks)
            try:
                await keeper.open(stubborn())
            finally:
                await keeper.close(1)
    assert log in ([], ["entered", "left"])
