"""Every registered environment passes `agent-rl env check`."""

from __future__ import annotations

import pytest

from agent_rl.errors import NotFoundError, UserError
from agent_rl.registry import environment_spec, environments
from agent_rl.testing import CheckOptions, check_environment

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(900)]
NEED_MORE = {"gem", "openenv", "verifiers"}  # a package or a server that is not part of the development extra

SLOW = {"swe", "terminal"}  # seconds an episode: fewer tasks


@pytest.mark.parametrize("id", environments())
async def test_it_passes_the_check(id: str) -> None:
    try:
        await check_environment(environment_spec(id), CheckOptions(tasks=4 if id in SLOW else 12))
    except NotFoundError:
        raise
    except UserError as error:
        if id not in NEED_MORE:
            raise
        pytest.skip(str(error))
