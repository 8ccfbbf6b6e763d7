"""Sandboxes for tests: each backend that works here; a skip says why one does not."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent_rl.sandbox import Sandbox, SandboxConfig, get_sandbox, open_sandbox

KINDS = ("process", "bubblewrap")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if problem := get_sandbox(request.param).unavailable(SandboxConfig()):
        pytest.skip(f"{request.param}: {problem}")
    return request.param


@pytest.fixture
def public_path(tmp_path: Path) -> Path:
    """`tmp_path`, but readable to every user: sandboxes of root's run as another."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder != tmp_path and not folder.name.startswith(("pytest-", "popen-")):
            break
        folder.chmod(0o755)
    return tmp_path


@pytest.fixture
def opened(kind: str) -> Callable[..., Awaitable[Sandbox]]:
    """Opens a sandbox of the kind: `await opened(memory_mb=64)`."""

    async def open_one(**options: object) -> Sandbox:
        return await open_sandbox(SandboxConfig.model_validate({"kind": kind, **options}))

    return open_one
