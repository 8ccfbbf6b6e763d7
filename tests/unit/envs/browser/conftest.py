import shutil

import pytest

from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment, MiniwobConfig
from agent_rl_tools.browser import BrowserConfig, ViewConfig


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def run(anyio_backend):
    """What a run lends, with one browser for all tests."""
    if not any(map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))):
        pytest.skip("Chromium is not installed: apt install chromium-headless-shell")
    async with tool_services(ToolsConfig()) as services:
        yield services


@pytest.fixture
def config():
    """Options for a page or several of MiniWoB++."""

    def options(pages="", **others):
        view = ViewConfig(observation="elements", header=False)
        browser = BrowserConfig(width=400, height=300)
        return BrowserEnvConfig(miniwob=MiniwobConfig(pages=pages), view=view, browser=browser, **others)

    return options


@pytest.fixture
async def opened(run):
    """`await opened(config, task)`: an environment after its reset, and what it said."""
    environments = []

    async def start(config, task=None, **data):
        task = task or BrowserEnvironment.tasks("train", 1, 0, config)[0]
        if data:
            task = task.__class__(task.id, task.prompt, {**task.data, **data}, task.environment, task.tags)
        environment = BrowserEnvironment(config)
        environments.append(environment)
        return environment, await environment.reset(task, 0)

    yield start
    for environment in environments:
        await environment.close()
