"""Deadlines that move, on asyncio and on trio's clock."""

import math

import anyio
import pytest

from agent_rl.concurrency import Deadline

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
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
