"""Every backend keeps the contract: the shipped conformance kit, one test for each of its checks."""

import pytest

from agent_rl.testing.sandbox import CHECKS, check_sandbox

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, opened):
    await check_sandbox(opened, [check])
