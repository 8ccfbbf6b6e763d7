import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before it is imported: no test waits for a hub


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
