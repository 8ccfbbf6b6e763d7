"""`bash`: a shell in the episode's sandbox, whose folder and variables last from call to call."""

from __future__ import annotations

from agent_rl import Toolset, tool
from agent_rl.sandbox import Sandbox
from agent_rl_tools.python import describe


class BashTool(Toolset):
    """One shell in a sandbox, which stays the environment's to close. `timeout_s` is for each call."""

    def __init__(self, sandbox: Sandbox, *, timeout_s: float = 30.0) -> None:
        self._session = sandbox.shell()
        self._timeout_s = timeout_s

    @tool(timeout_s=600.0)
    async def bash(self, command: str) -> str:
        """Run a bash command. The current folder and variables stay for the next call.

        Args:
            command: The command; several lines are fine.
        """
        return describe(await self._session.run(command, timeout_s=self._timeout_s), self._timeout_s)

    async def close(self) -> None:
        """End the shell."""
        await self._session.close()
