"""Every backend keeps the contract, and so do leases of a pool: the shipped conformance kit, a test for each check."""

import pytest

from agent_rl.sandbox import SandboxConfig
from agent_rl.testing.sandbox import CHECKS, check_sandbox
from agent_rl_sandboxes.pool import SandboxPool

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, opened):
    await check_sandbox(opened, [check])


async def test_contract_of_leases():
    async with SandboxPool(SandboxConfig(kind="process"), warm=1) as pool:
        await check_sandbox(pool.acquire)
