"""`python`: an interpreter in the episode's sandbox, whose variables last from call to call."""

from __future__ import annotations

from agent_rl import Toolset, tool
from agent_rl.sandbox import Sandbox, SessionResult


class PythonTool(Toolset):
    """One interpreter in a sandbox, which stays the environment's to close. `timeout_s` is for each call."""

    def __init__(self, sandbox: Sandbox, *, timeout_s: float = 30.0) -> None:
        self._session = sandbox.python()
        self._timeout_s = timeout_s

    @tool(timeout_s=600.0)
    async def python(self, code: str) -> str:
        """Run Python code. Variables, imports and functions stay for the next call.

        What is printed is shown, and the value of a last expression. Figures are saved as files.

        Args:
            code: The code; several lines are fine.
        """
        return describe(await self._session.run(code, timeout_s=self._timeout_s), self._timeout_s)

    async def close(self) -> None:
        """End the interpreter."""
        await self._session.close()


def describe(result: SessionResult, timeout_s: float) -> str:
    """What a model reads of a run."""
    parts = [result.stdout.rstrip("\n"), result.stderr.rstrip("\n"), result.value or "", result.error or ""]
    parts += [f"[saved {name}]" for name in result.files]
    if result.exit_code:
        parts.append(f"[exit code {result.exit_code}]")
    if result.timed_out:
        parts.append(f"[stopped: it took longer than {timeout_s:g} s]")
    if result.state_lost:
        parts.append("[the interpreter has ended: all of its state is lost]")
    return "\n".join(part for part in parts if part) or "[no output]"
