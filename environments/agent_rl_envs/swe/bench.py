"""What all episodes of a run share: prepared repositories, and the judge."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from agent_rl.sandbox import Sandbox, SandboxConfig, open_sandbox
from agent_rl_envs.swe.judge import Judge
from agent_rl_envs.swe.problems import Problem
from agent_rl_envs.swe.repositories import Repositories, Repository


@dataclass(slots=True)
class Bench:
    """See the module. A repository is prepared once, whoever asks for it."""

    sandbox: SandboxConfig
    repositories: Repositories
    judge: Judge
    _ready: dict[str, Repository] = field(default_factory=dict[str, Repository])
    _locks: dict[str, anyio.Lock] = field(default_factory=dict[str, anyio.Lock])

    async def repository(self, problem: Problem) -> Repository:
        """Raises what `Repositories.prepare` raises."""
        async with self._locks.setdefault(problem.id, anyio.Lock()):
            if problem.id not in self._ready:
                self._ready[problem.id] = await self.repositories.prepare(problem)
            return self._ready[problem.id]

    async def workspace(self, problem: Problem, repository: Repository) -> Sandbox:
        """A sandbox for an agent; the caller owns it."""
        return await open_sandbox(repository.workspace(self.sandbox, problem.source))


@asynccontextmanager
async def open_bench(
    sandbox: SandboxConfig, cache: Path, judges: int, tests_timeout_s: float, prepare_timeout_s: float
) -> AsyncGenerator[Bench, None]:
    """`judges` attempts are graded at a time."""
    repositories = Repositories(cache, sandbox, prepare_timeout_s)
    yield Bench(sandbox, repositories, Judge(sandbox, judges, tests_timeout_s))
