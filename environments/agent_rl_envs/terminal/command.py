"""The commands `agent-rl terminal make` and `agent-rl terminal prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
from pydantic import Field
from rich.console import Console

from agent_rl.concurrency import in_thread
from agent_rl.config import Config
from agent_rl.errors import RolloutFailure, UserError
from agent_rl.options import OptionStyle, parse_options
from agent_rl.progress import counting_progress
from agent_rl.sandbox import SandboxConfig
from agent_rl_envs.terminal.environment import TerminalConfig, why_not_here
from agent_rl_envs.terminal.formats.folders import find_tasks, sample_tasks
from agent_rl_envs.terminal.made.make import Made, make_tasks, write_folder
from agent_rl_envs.terminal.worlds.prepared import Limits, Worlds, cache_root

_SPLITS = ("train", "test")


class MakeConfig(Config):
    """Make shell tasks as directories of Harbor, with hidden checkers and solutions."""

    output: Path = Field(description="Folder for train/NAME and test/NAME.")
    count: int = Field(default=100, ge=1, description="Tasks to make, of all templates as many.")
    test_share: float = Field(default=0.2, ge=0, le=1, description="Share of them for the test split.")
    seed: int = Field(default=0, ge=0, description="Which tasks are made.")


class PrepareConfig(Config):
    """Prepare the systems of a folder of tasks before episodes need them."""

    source: Path = Field(description="Folder of tasks, as of Harbor or Terminal-Bench.")
    cache: Path | None = Field(default=None, description="Where to; none: the user's cache.")
    limits: Limits = Field(default="task", description="Whose limits hold while preparing.")
    prepare_timeout_s: float = Field(default=1800.0, gt=0, description="Deadline of each step of preparing.")
    sandbox: SandboxConfig = Field(
        default=SandboxConfig(max_processes=256), description="Where they will be used; network, if they need it."
    )


def make_command(argv: Sequence[str]) -> None:
    """Make shell tasks as directories of Harbor, with hidden checkers and solutions."""
    config = parse_options(MakeConfig, argv, prog="agent-rl terminal make")
    make(config, Console(stderr=True, highlight=False, soft_wrap=True))


def prepare_command(argv: Sequence[str]) -> None:
    """Prepare the systems of a folder of tasks before episodes need them."""
    style = OptionStyle(positional="source")
    config = parse_options(PrepareConfig, argv, prog="agent-rl terminal prepare", style=style)
    anyio.run(prepare, config, Console(stderr=True, highlight=False, soft_wrap=True))


def make(config: MakeConfig, console: Console) -> None:
    """Write the tasks. Those that are there already are left as they are."""
    in_test = round(config.count * config.test_share)
    done = 0
    with counting_progress(console, "tasks", config.count) as advance:
        for split, count in zip(_SPLITS, (config.count - in_test, in_test), strict=True):
            for made in make_tasks(split, count, config.seed):
                _write(made, config.output / split / f"{made.template}-{made.number}")
                done += 1
                advance(done, made.template)
    use = f"agent-rl eval terminal --environment-options source {config.output}"
    console.print(f"{config.count} tasks in {config.output}: {use}")


def _write(made: Made, folder: Path) -> None:
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}.part")
    write_folder(made, part)
    part.rename(folder)


async def prepare(config: PrepareConfig, console: Console) -> None:
    """Prepare what is not yet; what cannot be is told in the end. Raises `UserError` when nothing can."""
    worlds = Worlds(cache_root(config.cache), config.sandbox, config.limits, config.prepare_timeout_s)
    options = TerminalConfig(source=config.source, sandbox=config.sandbox)
    folders = await in_thread(partial(find_tasks, config.source, "", 0.0))
    why_not = partial(why_not_here, config=options)
    problems = await in_thread(partial(sample_tasks, folders, len(folders), 0, "skip", why_not))
    failed: list[str] = []
    with counting_progress(console, "preparing", len(problems)) as advance:
        for done, problem in enumerate(problems, 1):
            try:
                await worlds.prepare(problem)
            except (UserError, RolloutFailure) as error:
                failed.append(f"{problem.id}: {error}")
            advance(done, problem.id)
    for line in failed:
        console.print(line)
    if len(failed) == len(problems):
        raise UserError(f"None of the {len(problems)} systems could be prepared.")
    console.print(f"{len(problems) - len(failed)} of {len(folders)} systems are ready in {worlds.root}.")
