"""`view`, `create`, `str_replace` and `insert`: reading and editing text files in the episode's sandbox."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent_rl import ToolError, Toolset, tool
from agent_rl.errors import did_you_mean
from agent_rl.sandbox import Sandbox

_MAX_BYTES = 4 * 2**20
_CONTEXT = 3  # lines around an edit that the model is shown
Line = Annotated[int, Field(ge=1)]


class FileTools(Toolset):
    """Files below the workspace of a sandbox, which stays the environment's to close."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    @tool(effects="read_only")
    async def view(self, path: str, first_line: Line = 1, last_line: Line | None = None) -> str:
        """Show a file with line numbers, or what is in a folder.

        Args:
            path: The file or folder.
            first_line: First line to show.
            last_line: Last line to show; by default the end of the file.
        """
        try:
            lines = (await self._read(path)).split("\n")
        except IsADirectoryError:
            entries = await self._sandbox.list(path)
            return "\n".join(e.name + ("/" if e.kind == "folder" else "") for e in entries) or "[empty folder]"
        if first_line > len(lines):
            raise ToolError(f"{path} has {len(lines)} lines.")
        return _numbered(lines, first_line, min(last_line or len(lines), len(lines)))

    @tool
    async def create(self, path: str, content: str) -> str:
        """Create a file, or replace all of its content.

        Args:
            path: The file; its folders are created as well.
            content: The whole content.
        """
        existed = await self._exists(path)
        await self._write(path, content)
        return f"{'Replaced' if existed else 'Created'} {path}."

    @tool
    async def str_replace(self, path: str, old: str, new: str) -> str:
        """Replace a piece of a file that occurs exactly once.

        Args:
            path: The file.
            old: The piece, exactly as it is, with its indentation.
            new: What comes in its place; empty deletes it.
        """
        text = await self._read_file(path)
        if not old:
            raise ToolError("`old` is empty: use `insert` to add text.")
        count = text.count(old)
        if count != 1:
            raise ToolError(_not_once(path, text, old, count))
        await self._write(path, text.replace(old, new))
        first = text[: text.index(old)].count("\n") + 1
        return f"Edited {path}:\n" + _around(text.replace(old, new), first, first + new.count("\n"))

    @tool
    async def insert(self, path: str, after_line: Annotated[int, Field(ge=0)], text: str) -> str:
        """Insert lines into a file.

        Args:
            path: The file.
            after_line: The line after which they come; 0 is the beginning of the file.
            text: The lines.
        """
        lines = (await self._read_file(path)).split("\n")
        if after_line > len(lines):
            raise ToolError(f"{path} has {len(lines)} lines.")
        added = text.removesuffix("\n").split("\n")
        lines[after_line:after_line] = added
        await self._write(path, "\n".join(lines))
        return f"Edited {path}:\n" + _around("\n".join(lines), after_line + 1, after_line + len(added))

    async def _read_file(self, path: str) -> str:
        try:
            return await self._read(path)
        except IsADirectoryError as error:
            raise ToolError(f"{path} is a folder.") from error

    async def _read(self, path: str) -> str:
        """Raises `ToolError`, and `IsADirectoryError`."""
        try:
            data = await self._sandbox.read(path, max_bytes=_MAX_BYTES)
        except IsADirectoryError:
            raise
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}.{await self._nearest(path)}") from error
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ToolError(f"{path} is no text file.") from error

    async def _nearest(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        try:
            return did_you_mean(name, [entry.name for entry in await self._sandbox.list(folder or ".")])
        except OSError:
            return ""

    async def _exists(self, path: str) -> bool:
        try:
            await self._sandbox.read(path, max_bytes=_MAX_BYTES)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    async def _write(self, path: str, text: str) -> None:
        try:
            await self._sandbox.write(path, text.encode("utf-8", "surrogateescape"))
        except (OSError, UnicodeEncodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the text has half of a surrogate pair"
            raise ToolError(f"{path}: {reason}.") from error


def _numbered(lines: list[str], first: int, last: int) -> str:
    width = len(str(last))
    return "\n".join(f"{number:>{width}}  {lines[number - 1]}" for number in range(first, last + 1))


def _around(text: str, first: int, last: int) -> str:
    lines = text.split("\n")
    return _numbered(lines, max(1, first - _CONTEXT), min(len(lines), last + _CONTEXT))


def _not_once(path: str, text: str, old: str, count: int) -> str:
    if count > 1:
        places, at = list[str](), -1
        while len(places) < 5 and (at := text.find(old, at + 1)) >= 0:
            places.append(str(text[:at].count("\n") + 1))
        more = ", ..." if count > len(places) else ""
        return f"`old` occurs {count} times in {path}, from lines {', '.join(places)}{more}: add lines around it."
    first = old.strip().split("\n")[0].strip()
    near = [str(number) for number, line in enumerate(text.split("\n"), 1) if first and first in line][:5]
    hint = f" Its first line occurs in line {', '.join(near)}: look at the white space." if near else ""
    return f"`old` does not occur in {path}.{hint}"
