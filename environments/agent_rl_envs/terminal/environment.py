"""The `terminal` environment: do what the instruction says in a shell, until a hidden checker is content.

Tasks are directories of Harbor or Terminal-Bench, or made up in Harbor's format. The agent is root in a system of its
own; when it submits, or its time is over, the checker is put into a copy of that system and run there (`checking.py`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from agent_rl.concurrency import in_thread
from agent_rl.config import Config
from agent_rl.errors import GraderFailure, UserError, not_found
from agent_rl.grading import grade
from agent_rl.rewards import Weights, check_weights, weighted
from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl.tool import ToolEnvironment, share
from agent_rl.types import Message, Step, StepInfo, Task, ToolCall
from agent_rl_envs.terminal.bench import Bench, open_bench
from agent_rl_envs.terminal.cheating import cheating_commands
from agent_rl_envs.terminal.checking import Verdict
from agent_rl_envs.terminal.formats.folders import OnUnsupported, find_tasks, read_task, sample_tasks
from agent_rl_envs.terminal.made.make import Made, find_made, make_tasks, write_task
from agent_rl_envs.terminal.problems import Problem, Script
from agent_rl_envs.terminal.worlds.prepared import Limits, cache_root, is_docker
from agent_rl_envs.terminal.worlds.refusals import why_not_docker, why_not_local
from agent_rl_envs.workbench import Workbench

TERMS = ("solved", "reward", "tests", "submitted")
_OF_CHECKER = "checker."
_MARK = "END_OF_FILE_7d1f"


class TerminalConfig(Config):
    """Options of `terminal`."""

    source: Path | None = Field(
        default=None, description="Folder of tasks, or of one, as of Harbor or Terminal-Bench; none: tasks are made up."
    )
    test_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of the tasks for test where no folders train and test are there."
    )
    on_unsupported: OnUnsupported = Field(
        default="skip", description="Tasks that cannot be run here: left out with a warning, or an error."
    )
    bases: tuple[str, ...] = Field(
        default=(
            *("ubuntu", "debian", "python", "buildpack-deps"),
            *("ghcr.io/laude-institute/t-bench/ubuntu-24-04", "ghcr.io/laude-institute/t-bench/python-3-13"),
        ),
        description="Without docker: base images whose tools this machine is taken to have; with or without a tag.",
    )
    limits: Limits = Field(
        default="task", description="Whose memory, processors and disk hold: those of the task, or of `sandbox`."
    )
    cache: Path | None = Field(default=None, description="Folder of prepared systems; none: the user's cache.")
    sandbox: SandboxConfig = Field(
        default=SandboxConfig(max_processes=256), description="Where agents work and checkers run."
    )
    command_timeout_s: float = Field(default=30.0, gt=0, description="Deadline of a command in the shell.")
    max_observation_chars: int = Field(default=10_000, ge=200, description="How much of a tool's output is read.")
    time_limit: Literal["wall", "tools", "off"] = Field(
        default="wall", description="What the task's time for the agent counts: all of it, that in tools, or nothing."
    )
    judges: int = Field(default=2, ge=1, description="Checkers that run at a time.")
    check_timeout_s: float = Field(default=600.0, gt=0, description="Deadline of a checker; the task's own if sooner.")
    judge_timeout_s: float = Field(default=1800.0, gt=0, description="Deadline of grading, waiting included.")
    prepare_timeout_s: float = Field(default=600.0, gt=0, description="Deadline of each step of preparing.")
    weights: Weights = Field(
        default={"reward": 1.0},
        description=f"Weight of each reward term: {', '.join(TERMS)}, or checker.NAME, which a checker gives.",
    )

    @field_validator("weights")
    @classmethod
    def _terms_exist(cls, weights: Weights) -> Weights:
        check_weights({name: 0.0 for name in weights if not name.startswith(_OF_CHECKER)}, TERMS)
        return weights


_DEFAULTS = TerminalConfig()


class TerminalEnvironment(ToolEnvironment):
    """One shell task."""

    config_type = TerminalConfig

    def __init__(self, config: TerminalConfig = _DEFAULTS) -> None:
        self._config = config
        self._problem: Problem | None = None
        self._bench: Bench | None = None
        self._world: SandboxConfig | None = None
        self._workbench: Workbench | None = None
        self._started = self._in_tools_s = 0.0
        self._turns = 0

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0, config: TerminalConfig = _DEFAULTS) -> Sequence[Task]:
        """`count` tasks. Those that cannot be run here are left out (`on_unsupported`)."""
        if split not in ("train", "test"):
            raise not_found("split", split, ("train", "test"))
        if config.source is None:
            return [_made_task(made) for made in make_tasks(split, count, seed)]
        folders = find_tasks(config.source, split, config.test_share)
        why_not = functools.partial(why_not_here, config=config)
        return [_task(problem) for problem in sample_tasks(folders, count, seed, config.on_unsupported, why_not)]

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        """`seed` is not used: siblings have one world."""
        config = self._config
        self._problem = await in_thread(functools.partial(_problem_of, task, config))
        self._bench = await _shared_bench(config)
        self._world = await self._bench.worlds.prepare(self._problem)
        sandbox = await open_sandbox(self._world)
        self._workbench = Workbench(
            sandbox, command_timeout_s=config.command_timeout_s, max_chars=config.max_observation_chars
        )
        self.toolsets = (self._workbench,)
        self._started = time.monotonic()
        return task.prompt

    async def step(self, action: Message) -> Step:
        """As every environment with tools; when the task's time is over, what is there is graded."""
        self._turns += 1
        began = time.monotonic()
        step = await super().step(action)
        self._in_tools_s += time.monotonic() - began
        if step.terminated or not self._is_late():
            return step
        graded = await self._graded(submitted=False)
        info = replace(graded.info, tool_results=step.info.tool_results)
        return graded._replace(messages=step.messages, terminated=False, truncated=True, info=info)

    def _is_late(self) -> bool:
        limit_s, clock = self._opened.agent_timeout_s, self._config.time_limit
        if limit_s is None or clock == "off":
            return False
        return (self._in_tools_s if clock == "tools" else time.monotonic() - self._started) > limit_s

    async def answer(self, action: Message) -> Step:
        """Grade the system as it is now, submitted or not."""
        return await self._graded(submitted=self._tools.submitted is not None)

    async def _graded(self, submitted: bool) -> Step:
        problem, config = self._opened, self._config
        assert self._bench is not None
        assert self._world is not None
        verdict = await grade(
            self._bench.judge.judge, problem, self._world, self._tools.sandbox, timeout_s=config.judge_timeout_s
        )
        return self._final(verdict, submitted)

    def _final(self, verdict: Verdict, submitted: bool) -> Step:
        terms = {
            "solved": float(verdict.solved),
            "reward": verdict.reward,
            "tests": float(verdict.solved) if verdict.tests is None else verdict.tests,
            "submitted": float(submitted),
            **{f"{_OF_CHECKER}{name}": value for name, value in verdict.rewards.items()},
        }
        weights = self._config.weights
        missing = [name for name in weights if name not in terms]
        if missing and verdict.status == "done":
            message = f"The checker of {self._opened.id} gives no {missing[0].removeprefix(_OF_CHECKER)!r}."
            raise GraderFailure(message, kind="missing_term", retryable=False)
        terms |= dict.fromkeys(missing, 0.0)
        metrics = {"checker_s": verdict.duration_s}
        if verdict.status != "done":
            metrics[f"checker_{verdict.status}"] = 1.0
        info = StepInfo(reward_terms=terms, metrics=metrics)
        return Step((), weighted(terms, weights), terminated=True, info=info)

    def oracle_action(self) -> Message:
        """Puts the task's own solution in its place and runs it, then submits."""
        solution = self._opened.solution
        if solution is None:
            raise NotImplementedError("this task came without a solution")
        return _call("submit", {}) if self._turns else _call("bash", {"command": _running(solution)})

    def random_action(self, rng: np.random.Generator) -> Message:
        """Looks around, changes something, and submits after a while."""
        names = ("notes.txt", "result.json", "out.csv", "run.sh")
        name = names[int(rng.integers(len(names)))]
        moves = (
            _call("bash", {"command": "pwd; ls -A"}),
            _call("bash", {"command": "find . -type f | sort | head -20 | xargs -r wc -l"}),
            # In two steps: whether `find` sees the file that it is written to would be chance.
            _call("bash", {"command": f"found=$(find . -name '*.txt' | sort); echo \"$found\" > {name}"}),
            _call("create", {"path": name, "content": f"{int(rng.integers(1000))}\n"}),
            _call("search", {"pattern": r"^\w+", "files": "*"}),
            _call("submit", {}),
        )
        return moves[int(rng.integers(len(moves)))]

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """Ways to be rewarded without doing the task."""
        submit = _call("submit", {})
        return {name: (_call("bash", {"command": text}), submit) for name, text in cheating_commands().items()}

    def secrets(self) -> Sequence[str]:
        """The checker and the solution."""
        problem = self._opened
        scripts = [script for script in (problem.checker, problem.solution) if script is not None]
        return [text for script in scripts if (text := script.files[script.main].read_text("utf-8", "replace").strip())]

    @property
    def _opened(self) -> Problem:
        assert self._problem is not None, "reset() reads the task"
        return self._problem

    @property
    def _tools(self) -> Workbench:
        assert self._workbench is not None, "reset() opens the sandbox"
        return self._workbench


def why_not_here(problem: Problem, config: TerminalConfig) -> str | None:
    """Why a task cannot be run with these options. Raises `Unsupported` and `UserError` too."""
    network = config.sandbox.network
    if is_docker(config.sandbox):
        return why_not_docker(problem, network)
    return why_not_local(problem, config.bases, network)


async def _shared_bench(config: TerminalConfig) -> Bench:
    options = (config.judges, config.check_timeout_s, config.prepare_timeout_s)
    root = cache_root(config.cache)
    key = ("terminal", str(root), config.sandbox.model_dump_json(), config.limits, *options)
    return await share(key, functools.partial(open_bench, root, config.sandbox, config.limits, *options))


def _call(tool: str, arguments: Mapping[str, object]) -> Message:
    return Message("assistant", "", (ToolCall("call_0", tool, arguments),))


def _running(script: Script) -> str:
    """Commands that write a script's files and run it."""
    lines = [f"mkdir -p {script.target}"]
    for name, path in script.files.items():
        target = f"'{script.target}/{name}'"
        lines.append(f'mkdir -p "$(dirname {target})"')
        try:
            text = path.read_bytes().decode()
            end = "" if text.endswith("\n") else "\n"
            lines.append(f"cat > {target} <<'{_MARK}'\n{text}{end}{_MARK}")
        except UnicodeDecodeError:
            escaped = "".join(f"\\x{byte:02x}" for byte in path.read_bytes())
            lines.append(f"printf '%b' '{escaped}' > {target}")
    variables = "".join(f"{name}='{value}' " for name, value in script.environment.items())
    return "\n".join([*lines, f"{variables}bash {script.path}"])


# --- tasks ----------------------------------------------------------------------------------------------------------


def _task(problem: Problem) -> Task:
    data = {"folder": str(problem.folder.absolute())}
    return Task(problem.id, _prompt(problem.instruction), data, environment="terminal", tags=problem.tags)


def _made_task(made: Made) -> Task:
    data = {"made": {"template": made.template, "split": made.split, "number": made.number}}
    return Task(made.id, _prompt(made.instruction), data, environment="terminal", tags=(f"kind:{made.template}",))


def _prompt(instruction: str) -> tuple[Message, ...]:
    return (Message("system", _SYSTEM), Message("user", instruction))


def _problem_of(task: Task, config: TerminalConfig) -> Problem:
    """The task's folder, read; that of one that is made up is written first, if it is not there. Blocks."""
    if "folder" in task.data:
        folder = Path(task.data["folder"])
        if not folder.is_dir():
            raise UserError(f"The folder {folder} of the task {task.id} is gone: put it back, or make the tasks anew.")
        return read_task(folder)
    made = find_made(**task.data["made"])
    return read_task(write_task(made, cache_root(config.cache), config.prepare_timeout_s))


_SYSTEM = (
    "You work in a shell, as root of a system of your own. Do what is asked below; a checker that you cannot see "
    "decides by what is there in the end. Your shell starts in the task's folder. Call `submit` when you are done."
)
