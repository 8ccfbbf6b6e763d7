"""The pool's bookkeeping with a backend that fails, dies and dawdles as told; virtual time."""

import random
from contextlib import suppress

import anyio
import pytest
import trio
import trio.testing

from agent_rl.concurrency import collect
from agent_rl.errors import SandboxFailure, UserError
from agent_rl.sandbox import Sandbox, SandboxBackend, SandboxConfig
from agent_rl_sandboxes.pool import Lease, SandboxPool


class FakeSandbox(SandboxBackend):
    """Opening takes `start_s`; every `fails`-th opening fails."""

    opened, alive, most, start_s, fails, dead = 0, set(), 0, 1.0, 0, set()

    strength = unavailable = classmethod(lambda cls, config=None: None)
    guarantees = workspace = None
    exec = read = write = list = python = shell = None

    @classmethod
    async def open(cls, config):
        await anyio.sleep(cls.start_s)
        cls.opened += 1
        if cls.fails and cls.opened % cls.fails == 0:
            raise SandboxFailure("no luck")
        made = cls()
        cls.alive.add(made)
        cls.most = max(cls.most, len(cls.alive))
        return made

    async def fork(self):
        return await type(self).open(None)

    def check_alive(self):
        if self in self.dead:
            raise SandboxFailure("it died")

    async def close(self):
        await anyio.sleep(0.5)
        self.alive.discard(self)


CONFIG = SandboxConfig(kind="fake")


@pytest.fixture
def run(monkeypatch):
    """Run an async function on a virtual clock, then check that nothing is open any more."""
    FakeSandbox.opened, FakeSandbox.most, FakeSandbox.start_s, FakeSandbox.fails = 0, 0, 1.0, 0
    FakeSandbox.alive, FakeSandbox.dead = set(), set()

    monkeypatch.setattr("agent_rl_sandboxes.pool.open_sandbox", FakeSandbox.open)

    def run(function):
        trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))
        assert not FakeSandbox.alive

    return run


def test_a_warm_lease_does_not_wait(run):
    async def go():
        async with SandboxPool(CONFIG, warm=2) as pool:
            await anyio.sleep(2)
            assert pool.ready == 2
            before = anyio.current_time()
            lease = await pool.acquire()
            assert anyio.current_time() == before
            assert isinstance(lease, Sandbox)
            await lease.close()
            assert anyio.current_time() == before
            await anyio.sleep(2)
            assert (pool.ready, pool.leased, pool.open) == (2, 0, 2)

    run(go)


def test_nothing_is_used_twice(run):
    async def go():
        seen = set()
        async with SandboxPool(CONFIG, warm=2, max_open=3) as pool:
            for _ in range(10):
                async with await pool.acquire() as lease:
                    assert lease._leased not in seen
                    seen.add(lease._leased)

    run(go)


def test_a_closed_lease_is_of_no_use(run):
    async def go():
        async with SandboxPool(CONFIG, warm=1) as pool:
            lease = await pool.acquire()
            await lease.close()
            await lease.close()
            with pytest.raises(SandboxFailure, match="given back"):
                lease.check_alive()

    run(go)


def test_a_ready_one_that_died_is_replaced(run):
    async def go():
        async with SandboxPool(CONFIG, warm=2) as pool:
            await anyio.sleep(2)
            FakeSandbox.dead = set(FakeSandbox.alive)
            lease = await pool.acquire()
            lease.check_alive()

    run(go)


def test_full_of_ready_ones_it_still_leases(run):
    async def go():
        async with SandboxPool(CONFIG, warm=2, max_open=2) as pool:
            await anyio.sleep(5)
            leases = [await pool.acquire() for _ in range(2)]
            assert FakeSandbox.most == 2
            with pytest.raises(SandboxFailure, match="raise max_open") as failure:
                await pool.acquire()
            assert failure.value.kind == "exhausted"
            await leases[0].close()
            await pool.acquire()

    run(go)


def test_refilling_goes_on_after_failures(run):
    async def go():
        FakeSandbox.fails = 2
        async with SandboxPool(CONFIG, warm=3) as pool:
            await anyio.sleep(30)
            assert pool.ready == 3

    run(go)


def test_forks_belong_to_the_pool(run):
    async def go():
        async with SandboxPool(CONFIG, warm=0, max_open=1) as pool:
            lease = await pool.acquire()
            fork = await lease.fork()
            assert isinstance(fork, Lease)
            assert pool.open == 2
            await lease.close()
            fork.check_alive()

    run(go)


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_random_aborts_leak_nothing(run, seed):
    chance = random.Random(seed)

    async def user(pool, at_s, patience_s, hold_s):
        await anyio.sleep(at_s)
        with anyio.move_on_after(patience_s):
            with suppress(SandboxFailure):  # an opening that failed, or no place in time
                async with await pool.acquire():
                    await anyio.sleep(hold_s)

    async def go():
        FakeSandbox.fails = 7
        async with SandboxPool(CONFIG, warm=4, max_open=16, max_starting=3, acquire_timeout_s=20) as pool:
            draws = [(chance.uniform(0, 60), chance.expovariate(1), chance.expovariate(1)) for _ in range(1000)]
            await collect([lambda draw=draw: user(pool, *draw) for draw in draws])
            await anyio.sleep(60)
            assert (pool.leased, pool.open) == (0, pool.ready)
            assert pool.ready == len(FakeSandbox.alive) == 4
            assert FakeSandbox.most <= 16

    run(go)


def test_leaving_by_an_error_closes_all(run):
    async def go():
        async with SandboxPool(CONFIG, warm=3) as pool:
            await pool.acquire()
            raise ValueError

    with pytest.raises(ExceptionGroup):
        run(go)
    assert not FakeSandbox.alive


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="warm <= max_open"):
        SandboxPool(CONFIG, warm=3, max_open=2)


@pytest.mark.parametrize("acquiring", [False, True])
def test_one_that_is_ready_in_the_moment_in_which_the_pool_is_left(run, monkeypatch, acquiring):
    async def go():
        ready = anyio.Event()

        async def open_sandbox(config):
            sandbox = await FakeSandbox.open(config)
            await ready.wait()
            return sandbox

        async def acquire():
            with pytest.raises(SandboxFailure, match="pool was left"):
                await pool.acquire()

        monkeypatch.setattr("agent_rl_sandboxes.pool.open_sandbox", open_sandbox)
        async with anyio.create_task_group() as tasks, SandboxPool(CONFIG, warm=0 if acquiring else 2) as pool:
            if acquiring:
                tasks.start_soon(acquire)
            await anyio.sleep(2)
            ready.set()  # too late for a cancellation to reach who waits for it
        assert pool.open == 0

    run(go)
