"""What the tests serve."""

import os
from pathlib import Path

import anyio

from agent_rl.errors import ToolError
from agent_rl.tool import Toolset, tool

CLOSED = Path(os.environ.get("CLOSED_NOTES", "/dev/null"))


@tool(effects="pure")
async def double(x: int) -> int:
    """Double a number.

    Args:
        x: The number.
    """
    if x < 0:
        raise ToolError("x must not be negative")
    return 2 * x


@tool(effects="read_only")
async def process() -> int:
    """Say which process this is."""
    return os.getpid()


@tool(timeout_s=0.1)
async def hang() -> None:
    """Never answer."""
    await anyio.sleep_forever()


@tool(timeout_s=30, effects="read_only")
async def slow(seconds: float) -> str:
    """Take a while."""
    await anyio.sleep(seconds)
    return "done"


@tool
async def broken() -> None:
    """Break."""
    raise RuntimeError("broken inside")


@tool
def die() -> None:
    """Take the process along."""
    os._exit(9)


class Notebook(Toolset):
    """Remembers what one episode wrote."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @tool
    async def write(self, line: str) -> int:
        """Write a line and return how many there are."""
        self._lines.append(line)
        return len(self._lines)

    @tool(effects="read_only")
    async def read_all(self) -> list[str]:
        """Read all lines."""
        return self._lines

    async def close(self) -> None:
        with CLOSED.open("a") as notes:  # noqa: ASYNC230
            notes.write(f"{len(self._lines)}\n")
