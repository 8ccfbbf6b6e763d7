"""Sandboxes for tests: each backend that works here; a skip says why one does not."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agent_rl.sandbox import Sandbox, SandboxConfig, get_sandbox, open_sandbox
from tests.sandboxes.docker_daemon import docker_daemon
from tests.sandboxes.kinds import KINDS, image_of


@pytest.fixture(scope="session")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon with the test image, for the whole session."""
    try:
        with docker_daemon(tmp_path_factory.mktemp("docker")) as url, pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", url)
            yield url
    except RuntimeError as reason:
        pytest.skip(f"docker: {reason}")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker_host")
    if problem := get_sandbox(request.param).unavailable(SandboxConfig(image=image_of(request.param))):
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
        return await open_sandbox(SandboxConfig.model_validate({"kind": kind, "image": image_of(kind), **options}))

    return open_one
