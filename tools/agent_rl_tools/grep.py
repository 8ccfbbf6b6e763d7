"""`search`: lines of files in the episode's sandbox that match a regular expression."""

from __future__ import annotations

from agent_rl import ToolError, Toolset, tool
from agent_rl.sandbox import Sandbox

_LONGEST_LINE = 240
_MAX_BYTES = 4 * 2**20


class GrepTool(Toolset):
    """Search in the files of a sandbox, which stays the environment's to close. At most `max_matches` are shown."""

    def __init__(self, sandbox: Sandbox, *, max_matches: int = 100, timeout_s: float = 30.0) -> None:
        self._sandbox = sandbox
        self._max_matches = max_matches
        self._timeout_s = timeout_s

    @tool(effects="read_only", timeout_s=600.0)
    async def search(self, pattern: str, path: str = ".", files: str = "*") -> str:
        """Search for lines that match a regular expression, in all text files below a folder.

        Args:
            pattern: The expression, as of `grep -E`.
            path: A folder or file.
            files: Only files with such names, for example `*.py`.
        """
        if "\0" in pattern + path + files:
            raise ToolError("There is a NUL character in the arguments.")
        options = ["-rnIE", "--exclude-dir=.git", "--exclude-dir=__pycache__", f"--include={files}", "-e", pattern]
        found = await self._sandbox.exec(
            ["grep", *options, "--", path], timeout_s=self._timeout_s, max_output_bytes=_MAX_BYTES
        )
        if found.timed_out:
            raise ToolError(f"The search took longer than {self._timeout_s:g} s: search in fewer files.")
        lines = found.stdout.decode("utf-8", "replace").splitlines()
        if not lines and found.stderr:
            raise ToolError(found.stderr.decode("utf-8", "replace").strip().removeprefix("grep: "))
        return self._shown(sorted(lines, key=_place)) or "Nothing matches."

    def _shown(self, lines: list[str]) -> str:
        shown = [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..." for line in lines]
        if len(lines) > self._max_matches:
            shown[self._max_matches :] = [f"[{len(lines) - self._max_matches} more lines match]"]
        return "\n".join(shown)


def _place(line: str) -> tuple[str, int]:
    """File and line number: grep finds folders in any order."""
    path, _, rest = line.partition(":")
    number = rest.partition(":")[0]
    return path.removeprefix("./"), int(number) if number.isdigit() else 0
