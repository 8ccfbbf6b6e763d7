"""An agent program that is another process, such as a command-line agent."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

import anyio
from anyio.abc import ByteReceiveStream, Process

from agent_rl.concurrency import shielded
from agent_rl.errors import ConfigError, EnvironmentFailure
from agent_rl.gateway.program import Assignment

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
_KILL_TIMEOUT_S = 5.0
_MOST_OUTPUT = 1 << 20  # bytes of stdout and of stderr that are kept


@dataclass(frozen=True, slots=True)
class Command:
    """A `Program` in a process of its own, such as `Command(["agent", "--task", "{prompt}"])`, for each episode anew.

    It finds the policy in the variables OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL, reads the prompt (the text of
    the opening messages) where an argument says `{prompt}`, else on stdin, and prints its answer. An exit code that is
    not in `exit_codes` is a failure. Of this process's variables it gets PATH and the like, so no secrets, and
    `variables`. Its whole process group is killed in the end. That is no sandbox: it runs with the rights of this
    process.
    """

    arguments: Sequence[str]
    folder: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    exit_codes: tuple[int, ...] = (0,)

    async def __call__(self, assignment: Assignment) -> str:
        """Run it to its end. Raises `EnvironmentFailure` for its exit code, `ConfigError` when it cannot be started."""
        prompt = "\n\n".join(message.content for message in assignment.prompt)
        arguments = [argument.replace("{prompt}", prompt) for argument in self.arguments]
        stdin = b"" if arguments != list(self.arguments) else prompt.encode()
        try:
            process = await anyio.open_process(
                arguments,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=self.folder,
                env=self._variables(assignment),
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise ConfigError(f"The program cannot be started: {error}.") from error
        exit_code, output, errors = await _run(process, stdin)
        if exit_code not in self.exit_codes:
            tail = errors.decode(errors="replace").strip()[-500:]
            raise EnvironmentFailure(f"the program ended with exit code {exit_code}: {tail}", stage="program")
        return output.decode(errors="replace").strip()

    def _variables(self, assignment: Assignment) -> dict[str, str]:
        policy = {
            "OPENAI_BASE_URL": assignment.base_url,
            "OPENAI_API_BASE": assignment.base_url,  # litellm's name for it
            "OPENAI_API_KEY": assignment.api_key,
            "OPENAI_MODEL": assignment.model,
        }
        return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | policy | dict(self.variables)


async def _run(process: Process, stdin: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr. What is left of its process group is killed then, or when this is cancelled."""
    output, errors = bytearray(), bytearray()
    try:
        async with anyio.create_task_group() as tasks:
            assert process.stdout is not None
            assert process.stderr is not None
            tasks.start_soon(_read, process.stdout, output)
            tasks.start_soon(_read, process.stderr, errors)
            tasks.start_soon(_write, process, stdin)
            await process.wait()
            _kill_group(process)  # children that it left behind would hold its pipes open
        assert process.returncode is not None
        return process.returncode, bytes(output), bytes(errors)
    finally:
        _kill_group(process)
        async with shielded(_KILL_TIMEOUT_S):
            await process.aclose()


async def _read(stream: ByteReceiveStream, into: bytearray) -> None:
    """All of it, so that the writer never waits; kept up to a limit."""
    async for chunk in stream:
        into += chunk[: _MOST_OUTPUT - len(into)]


async def _write(process: Process, data: bytes) -> None:
    assert process.stdin is not None
    try:
        await process.stdin.send(data)
        await process.stdin.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        return  # a program need not read its prompt


def _kill_group(process: Process) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
