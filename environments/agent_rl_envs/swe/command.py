"""The commands `agent-rl swe make` and `agent-rl swe prepare`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
from pydantic import Field
from rich.console import Console
from rich.table import Table

from agent_rl.concurrency import in_thread
from agent_rl.config import Config
from agent_rl.errors import RolloutFailure, UserError
from agent_rl.options import OptionStyle, parse_options
from agent_rl.progress import counting_progress
from agent_rl.rows import RowsConfig, read_rows
from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl.seeding import derive_seed
from agent_rl_envs.swe.commands import git, run
from agent_rl_envs.swe.factory.make import Tried, Workshop
from agent_rl_envs.swe.factory.survey import Survey, clean_problem, survey
from agent_rl_envs.swe.formats import Format, problem_of, to_row
from agent_rl_envs.swe.judge import Judge
from agent_rl_envs.swe.packages import check_testable
from agent_rl_envs.swe.problems import Problem, Source
from agent_rl_envs.swe.repositories import PREPARED, Repositories, root_for

_DENOMINATOR = 1000


class MakeConfig(Config):
    """Make tasks of packages that have tests: plant bugs, keep those that tests notice."""

    packages: tuple[str, ...] = Field(
        min_length=1, description="Names on the package index (click, click==8.1.7), or folders of git repositories."
    )
    output: Path = Field(description="Folder for train.jsonl, test.jsonl and the prepared repositories.")
    count: int = Field(default=100, ge=1, description="Tasks to make, shared among the packages.")
    seed: int = Field(default=0, ge=0, description="Which bugs are tried, and in which order.")
    per_function: int = Field(default=3, ge=1, description="Tasks of one function.")
    requires: tuple[str, ...] = Field(default=(), description="More packages that the tests need.")
    split: Literal["function", "package"] = Field(
        default="function", description="What train and test do not share: functions or whole packages."
    )
    test_share: float = Field(default=0.2, ge=0, le=1, description="Share of functions or packages for test.")
    at_once: int = Field(default=2, ge=1, description="Runs of tests at a time.")
    tests_timeout_s: float = Field(default=300.0, gt=0, description="Deadline of a run of all tests.")
    prepare_timeout_s: float = Field(default=900.0, gt=0, description="Deadline of each step of preparing.")
    sandbox: SandboxConfig = Field(default=SandboxConfig(max_processes=256), description="Where tests run.")


class PrepareConfig(Config):
    """Prepare the repositories of a data set before episodes need them."""

    source: str = Field(description="The rows: a file, a folder or a data set of the hub.")
    format: Format = Field(default="tasks", description="Format of the rows.")
    cache: Path | None = Field(default=None, description="Where to; none: beside the rows, or the user's cache.")
    prepare_timeout_s: float = Field(default=1800.0, gt=0, description="Deadline of each step of preparing.")
    sandbox: SandboxConfig = Field(default=SandboxConfig(), description="Where they will be used.")


def make_command(argv: Sequence[str]) -> None:
    """Make tasks of packages that have tests: plant bugs, keep those that tests notice."""
    config = parse_options(MakeConfig, argv, prog="agent-rl swe make", style=OptionStyle(positional="packages"))
    anyio.run(make, config, Console(stderr=True, highlight=False, soft_wrap=True))


def prepare_command(argv: Sequence[str]) -> None:
    """Prepare the repositories of a data set before episodes need them."""
    config = parse_options(PrepareConfig, argv, prog="agent-rl swe prepare", style=OptionStyle(positional="source"))
    anyio.run(prepare, config, Console(stderr=True, highlight=False, soft_wrap=True))


async def make(config: MakeConfig, console: Console) -> None:
    """Write the tasks. A run that was interrupted goes on where it was. Raises `UserError` where none can be made."""
    config.output.mkdir(parents=True, exist_ok=True)
    cache = config.output.absolute() / PREPARED
    repositories = Repositories(cache, config.sandbox, config.prepare_timeout_s)
    judge = Judge(config.sandbox, config.at_once, config.tests_timeout_s)
    table = Table("package", "tests", "kept", "rejected")
    made: dict[str, list[tuple[str, Problem]]] = {}
    async with await open_sandbox(config.sandbox):  # so that what starts sandboxes is there all the time
        for index, package in enumerate(config.packages):
            wanted = -(-(config.count - sum(map(len, made.values()))) // (len(config.packages) - index))
            try:
                workshop = await _open_workshop(package, config, repositories, judge)
            except (UserError, RolloutFailure) as error:
                console.print(f"{package} is left out: {error}")
                table.add_row(package, "0", "0", "cannot be used")
                continue
            name = workshop.clean.id
            tried = Tried.load(config.output / f"tried-{_file_name(name)}.jsonl")
            with counting_progress(console, name, wanted) as advance:
                bugs, rejected = await workshop.find_bugs(
                    wanted, config.seed, config.per_function, tried, partial(_advance, advance)
                )
            made[name] = [(bug.place, workshop.problem(bug)) for bug in bugs]
            reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common())
            table.add_row(name, str(len(workshop.survey.tests)), str(len(bugs)), reasons)
    total = write_tasks(config, made)
    console.print(table)
    if not total:
        raise UserError("No task could be made: take packages whose sdist comes with tests, or git repositories.")
    use = f"agent-rl eval swe --environment-options rows.source {config.output}"
    console.print(f"{total} tasks in {config.output}: {use}")


def _advance(advance: Callable[[int, str], None], kept: int, tried: int) -> None:
    advance(kept, f"of {tried} tried")


def write_tasks(config: MakeConfig, made: dict[str, list[tuple[str, Problem]]]) -> int:
    """`train.jsonl` and `test.jsonl`, in an order that tells nothing; the number of tasks."""
    rows: dict[str, list[Problem]] = {"train": [], "test": []}
    for name, problems in made.items():
        for place, problem in problems:
            key = name if config.split == "package" else f"{name}:{place}"
            share = derive_seed("swe split", config.seed, key) % _DENOMINATOR / _DENOMINATOR
            rows["test" if share < config.test_share else "train"].append(problem)
    for split, problems in rows.items():
        problems.sort(key=lambda problem: derive_seed("swe order", problem.id))
        text = "".join(json.dumps(to_row(problem), ensure_ascii=False) + "\n" for problem in problems)
        part = config.output / f"{split}.jsonl.part"
        part.write_text(text, "utf-8")
        part.rename(config.output / f"{split}.jsonl")
    return sum(map(len, rows.values()))


async def _open_workshop(package: str, config: MakeConfig, repositories: Repositories, judge: Judge) -> Workshop:
    """Fetched, installed and its tests run; what was found out is kept for the next time."""
    source = await in_thread(partial(source_of, package, config.requires, config.prepare_timeout_s))
    clean = clean_problem(source.name if source.kind == "package" else Path(source.name).name, source, "pytest")
    repository = await repositories.prepare(clean)
    noted = config.output / f"survey-{_file_name(clean.id)}.json"
    if noted.exists():
        found = Survey.from_json(noted.read_text("utf-8"))
    else:
        found = await survey(clean, repository, judge)
        noted.write_text(found.to_json(), "utf-8")
    return Workshop(clean, repository, repositories, judge, found)


def source_of(package: str, requires: Sequence[str], timeout_s: float) -> Source:
    """What a package's name or folder stands for: its newest version, or the commit that is checked out. Blocks."""
    if Path(package).is_dir():
        folder = Path(package).resolve()
        return Source("git", str(folder), git("rev-parse", "HEAD", cwd=folder).strip(), requires=tuple(requires))
    name, _, version = package.partition("==")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"{package} is neither a folder nor the name of a package, such as click or click==8.1.7.")
    check_testable(name)
    if not version:
        said = run([sys.executable, "-m", "pip", "index", "versions", name], timeout_s=timeout_s)
        match = re.search(r"\(([^)]+)\)", said)
        if not match:
            raise UserError(f"The package index does not say which versions of {name} there are.")
        version = match[1]
    return Source("package", f"{name}=={version}", requires=tuple(requires))


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.=-]", "_", name)


async def prepare(config: PrepareConfig, console: Console) -> None:
    """Prepare what is not yet; what cannot be is told in the end. Raises `UserError` when nothing can."""
    cache = config.cache.absolute() if config.cache else root_for(config.source)
    repositories = Repositories(cache, config.sandbox, config.prepare_timeout_s)
    rows = [row for split in ("train", "test") for row in read_rows(RowsConfig(source=config.source), split)]
    problems = [problem_of(row, config.format, images=config.sandbox.kind == "docker") for row in rows]
    wanted = [problem for problem in problems if problem is not None]
    failed: list[str] = []

    async def prepare_one(problem: Problem) -> None:
        try:
            await repositories.prepare(problem)
        except (UserError, RolloutFailure) as error:
            failed.append(f"{problem.id}: {error}")

    with counting_progress(console, "preparing", len(wanted)) as advance:
        for done, problem in enumerate(wanted, 1):
            await prepare_one(problem)
            advance(done, problem.id)
    for line in failed:
        console.print(line)
    if wanted and len(failed) == len(wanted):
        raise UserError(f"None of the {len(wanted)} repositories could be prepared.")
    console.print(f"{len(wanted) - len(failed)} of {len(rows)} repositories are ready in {cache}.")
