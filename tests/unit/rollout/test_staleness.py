import anyio
import pytest

from agent_rl.rollout.staleness import StalenessGate

pytestmark = pytest.mark.anyio


async def would_wait(gate: StalenessGate) -> bool:
    with anyio.move_on_after(0.01):
        await gate.acquire()
        return False
    return True


@pytest.mark.parametrize(("max_staleness", "capacity"), [(0, 3), (1, 6), (4, 15)])
async def test_admits_the_batches_that_may_be_in_flight_and_no_more(max_staleness, capacity):
    gate = StalenessGate(max_staleness, groups_per_batch=3)
    for _ in range(capacity):
        await gate.acquire()
    assert gate.in_flight == capacity
    assert await would_wait(gate)
    assert gate.in_flight == capacity, "a cancelled wait takes no slot"
    gate.release(3)
    assert gate.in_flight == capacity - 3
    assert not await would_wait(gate)


async def test_releasing_more_than_was_started_is_an_error():
    gate = StalenessGate(0, groups_per_batch=4)
    await gate.acquire()
    with pytest.raises(ValueError, match="only 1 are in flight"):
        gate.release(2)
    assert gate.in_flight == 1
