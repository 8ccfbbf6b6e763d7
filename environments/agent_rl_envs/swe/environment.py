"""The `swe` environment: mend a repository until its tests pass.

The agent works in a sandbox with the repository and its dependencies. What it submits is the state of the files: those
that changed, except tests and their settings, are put into a clean copy, where the tests are run (`judge.py`). With
several `attempts`, one that fails gets guidance and another try: Agent-RLVR (arXiv:2506.11425).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from agent_rl.concurrency import in_thread
from agent_rl.config import Config
from agent_rl.errors import not_found
from agent_rl.grading import grade
from agent_rl.rewards import Weights, check_weights, weighted
from agent_rl.rows import RowsConfig, sample_rows
from agent_rl.sandbox import SandboxConfig
from agent_rl.tool import ToolEnvironment, share
from agent_rl.types import Message, Step, StepInfo, Task, ToolCall
from agent_rl_envs.swe.bench import Bench, open_bench
from agent_rl_envs.swe.cheating import cheating_commands
from agent_rl_envs.swe.formats import Format, problem_of
from agent_rl_envs.swe.generator import make_problems
from agent_rl_envs.swe.guidance import Hint, guidance
from agent_rl_envs.swe.judge import NOTHING, Verdict, collect_changes, counted
from agent_rl_envs.swe.patches import similarity
from agent_rl_envs.swe.problems import Problem, from_data, to_data
from agent_rl_envs.swe.repositories import Repository, patch_of, root_for
from agent_rl_envs.workbench import Workbench

TERMS = ("resolved", "fail_to_pass", "pass_to_pass", "patch_similarity", "submitted")
_END_OF_PATCH = "END_OF_PATCH"


class SweConfig(Config):
    """Options of `swe`."""

    rows: RowsConfig = Field(default=RowsConfig(), description="Tasks of a data set; empty source: made up.")
    format: Format = Field(default="tasks", description="Format of the rows; tasks: what `agent-rl swe make` writes.")
    bugs: tuple[int, ...] = Field(
        default=(1, 2), min_length=1, description="Of tasks that are made up: how many bugs each may have."
    )
    hints: bool = Field(default=False, description="Whether the agent is shown the hints that rows have.")
    attempts: int = Field(default=1, ge=1, description="Submissions; one that fails gets guidance, but for the last.")
    guidance: tuple[Hint, ...] = Field(
        default=("tests", "errors", "files"),
        description="What guidance tells: failing tests, their errors, files that the solution changes.",
    )
    cache: Path | None = Field(
        default=None, description="Folder of prepared repositories; none: that of the rows, or the user's cache."
    )
    sandbox: SandboxConfig = Field(
        default=SandboxConfig(max_processes=256), description="Where agents work and tests run."
    )
    command_timeout_s: float = Field(default=30.0, gt=0, description="Deadline of a command in the shell.")
    max_observation_chars: int = Field(default=10_000, ge=200, description="How much of a tool's output is read.")
    judges: int = Field(default=2, ge=1, description="Attempts that are graded at a time.")
    tests_timeout_s: float = Field(default=300.0, gt=0, description="Deadline of the tests of an attempt.")
    judge_timeout_s: float = Field(default=900.0, gt=0, description="Deadline of grading, waiting included.")
    prepare_timeout_s: float = Field(default=1800.0, gt=0, description="Deadline of each step of preparing.")
    weights: Weights = Field(default={"resolved": 1.0}, description=f"Weight of each reward term: {', '.join(TERMS)}.")

    @field_validator("weights")
    @classmethod
    def _terms_exist(cls, weights: Weights) -> Weights:
        return check_weights(weights, TERMS)


_DEFAULTS = SweConfig()


class SweEnvironment(ToolEnvironment):
    """One repository to mend."""

    config_type = SweConfig

    def __init__(self, config: SweConfig = _DEFAULTS) -> None:
        self._config = config
        self._problem: Problem | None = None
        self._repository: Repository | None = None
        self._workbench: Workbench | None = None
        self._bench: Bench | None = None
        self._turns = self._attempts = 0

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0, config: SweConfig = _DEFAULTS) -> Sequence[Task]:
        """`count` tasks. Rows that cannot be graded (see `formats`) are left out."""
        if split not in ("train", "test"):
            raise not_found("split", split, ("train", "test"))
        if config.rows.source:
            images = config.sandbox.kind == "docker"
            rows = sample_rows(config.rows, split, count, seed)
            problems = [problem_of(row, config.format, images=images) for row in rows]
            return [_task(problem, config) for problem in problems if problem is not None]
        return [_task(problem, config) for problem in make_problems(split, count, seed, config.bugs)]

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        """`seed` is not used: siblings have one repository."""
        config = self._config
        self._problem = from_data(task.data["problem"])
        self._bench = await _shared_bench(config)
        self._repository = await self._bench.repository(self._problem)
        sandbox = await self._bench.workspace(self._problem, self._repository)
        self._workbench = Workbench(
            sandbox, command_timeout_s=config.command_timeout_s, max_chars=config.max_observation_chars
        )
        self.toolsets = (self._workbench,)
        return task.prompt

    async def step(self, action: Message) -> Step:
        """As every environment with tools."""
        self._turns += 1
        return await super().step(action)

    async def answer(self, action: Message) -> Step:
        """Grade the repository as it is now, submitted or not."""
        submitted = self._tools.submitted is not None
        self._attempts += 1
        problem, repository = self._opened
        changes = counted(await collect_changes(self._tools.sandbox, repository), problem)
        verdict = NOTHING
        if changes.paths and not changes.too_large:
            assert self._bench is not None
            judge = self._bench.judge.judge
            verdict = await grade(judge, problem, repository, changes, timeout_s=self._config.judge_timeout_s)
        if not verdict.resolved and self._attempts < self._config.attempts:
            self._tools.reopen()
            return Step((Message("user", guidance(verdict, problem, self._config.guidance, bool(changes.paths))),))
        alike = await in_thread(lambda: similarity(patch_of(changes, repository), problem.patch))
        return self._final(verdict, alike, submitted)

    def _final(self, verdict: Verdict, alike: float, submitted: bool) -> Step:
        terms = {
            "resolved": float(verdict.resolved),
            "fail_to_pass": verdict.fail_to_pass,
            "pass_to_pass": verdict.pass_to_pass,
            "patch_similarity": alike,
            "submitted": float(submitted),
        }
        metrics = {"attempts": float(self._attempts), "tests_s": verdict.run.duration_s}
        if verdict.run.status != "done":
            metrics[f"tests_{verdict.run.status}"] = 1.0
        info = StepInfo(reward_terms=terms, metrics=metrics)
        return Step((), weighted(terms, self._config.weights), terminated=True, info=info)

    def oracle_action(self) -> Message:
        """Applies the task's own patch with git, then submits."""
        problem, _ = self._opened
        if not problem.patch:
            raise NotImplementedError("this task came without a solution")
        if self._turns:
            return _call("submit", {})
        patch = problem.patch.rstrip("\n")
        return _call("bash", {"command": f"git apply <<'{_END_OF_PATCH}'\n{patch}\n{_END_OF_PATCH}"})

    def random_action(self, rng: np.random.Generator) -> Message:
        """Looks around, changes something, and submits after a while."""
        _, repository = self._opened
        files = [path for path in repository.manifest if path.endswith(".py")] or sorted(repository.manifest)
        path = files[int(rng.integers(len(files)))]
        word = ("return", "raise", "for", "import")[int(rng.integers(4))]
        moves = (
            _call("view", {"path": path, "first_line": 1, "last_line": 40}),
            _call("search", {"pattern": rf"^\s*{word}\b", "files": "*.py"}),
            _call("bash", {"command": "git status --short; ls"}),
            _call("bash", {"command": f"sed -i 's/ < / <= /' '{path}'"}),
            _call("submit", {}),
        )
        return moves[int(rng.integers(len(moves)))]

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """Ways to make the tests pass without mending anything."""
        problem, repository = self._opened
        commands = cheating_commands(problem, repository.runtime.python_path)
        submit = (_call("submit", {}),) * self._config.attempts
        return {name: (_call("bash", {"command": command}), *submit) for name, command in commands.items()}

    def secrets(self) -> Sequence[str]:
        """The solution, and tests that only the grader has."""
        problem, _ = self._opened
        return [patch for patch in (problem.patch, problem.test_patch) if patch.strip()]

    @property
    def _opened(self) -> tuple[Problem, Repository]:
        assert self._problem is not None
        assert self._repository is not None, "reset() prepares the repository"
        return self._problem, self._repository

    @property
    def _tools(self) -> Workbench:
        assert self._workbench is not None, "reset() opens the sandbox"
        return self._workbench


def _call(tool: str, arguments: Mapping[str, object]) -> Message:
    return Message("assistant", "", (ToolCall("call_0", tool, arguments),))


async def _shared_bench(config: SweConfig) -> Bench:
    cache = _cache_of(config)
    options = (cache, config.judges, config.tests_timeout_s, config.prepare_timeout_s)
    key = ("swe", config.sandbox.model_dump_json(), *map(str, options))
    return await share(key, functools.partial(open_bench, config.sandbox, *options))


def _cache_of(config: SweConfig) -> Path:
    return config.cache.absolute() if config.cache else root_for(config.rows.source)


# --- tasks ----------------------------------------------------------------------------------------------------------


def _task(problem: Problem, config: SweConfig) -> Task:
    hints = f"\n\nHints:\n{problem.hints}" if config.hints and problem.hints else ""
    prompt = (Message("system", _SYSTEM), Message("user", f"{problem.statement}{hints}"))
    return Task(problem.id, prompt, {"problem": to_data(problem)}, environment="swe", tags=problem.tags)


_SYSTEM = (
    "You mend software. Your shell starts in a git repository that has the problem described below. Find the cause "
    "and change the source so that the problem is gone and all else works as before. Tests decide, some of which you "
    "may not see; changes of tests and of their settings do not count. Call `submit` when you are done."
)
