"""The tools of an agent that works in a sandbox: a shell, files, search and `submit`, within what it may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent_rl.sandbox import Sandbox
from agent_rl.tool import Tool
from agent_rl_tools.bash import BashTool
from agent_rl_tools.files import FileTools
from agent_rl_tools.grep import GrepTool
from agent_rl_tools.submit import SubmitTool


class Workbench:
    """Tools of one episode, on a sandbox that it closes with them; a `Toolset` in all but name."""

    def __init__(self, sandbox: Sandbox, *, command_timeout_s: float, max_chars: int) -> None:
        self.sandbox = sandbox
        self._submit = SubmitTool()
        bash = BashTool(sandbox, timeout_s=command_timeout_s)
        self._toolsets = (bash, FileTools(sandbox), GrepTool(sandbox, timeout_s=command_timeout_s), self._submit)
        self.tools: Sequence[Tool] = [
            replace(tool, max_output_chars=max_chars) for toolset in self._toolsets for tool in toolset.tools
        ]

    @property
    def submitted(self) -> str | None:
        """What `submit` was given since `reopen`."""
        return self._submit.submitted

    def reopen(self) -> None:
        """Go on after a submission."""
        self._submit.submitted = None

    async def close(self) -> None:
        """End the shell and the sandbox. Idempotent."""
        await self.sandbox.close()
