"""What all episodes of a run share: prepared worlds, and the judge."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl_envs.terminal.checking import Judge
from agent_rl_envs.terminal.worlds.prepared import Limits, Worlds, is_docker


@dataclass(frozen=True, slots=True)
class Bench:
    """See the module."""

    worlds: Worlds
    judge: Judge


@asynccontextmanager
async def open_bench(
    root: Path, sandbox: SandboxConfig, limits: Limits, judges: int, check_timeout_s: float, prepare_timeout_s: float
) -> AsyncGenerator[Bench, None]:
    """`judges` checkers run at a time."""
    async with AsyncExitStack() as stack:
        if not is_docker(sandbox):  # one that is open keeps what starts sandboxes
            await stack.enter_async_context(await open_sandbox(SandboxConfig(kind=sandbox.kind)))
        yield Bench(Worlds(root, sandbox, limits, prepare_timeout_s), Judge(judges, check_timeout_s))
