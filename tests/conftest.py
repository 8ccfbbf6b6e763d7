import os

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"  # before it is imported: no test waits for a hub
# A busy machine is no fault of what is tested. CI takes `--hypothesis-profile ci`: the same examples each time.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
