"""`agent-rl export` and `agent-rl import`. Imports what they run when they run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field
from rich.console import Console

from agent_rl.config import Config
from agent_rl.errors import UserError
from agent_rl.options import OptionStyle, parse_options

if TYPE_CHECKING:
    from agent_rl.types import Group

FormatName: TypeAlias = Literal["atif", "chat", "parquet", "verifiers", "verifiers_traces", "verl", "verl_rollouts"]
ReadableName: TypeAlias = Literal["atif", "chat", "parquet", "verifiers", "verifiers_traces"]


class ExportConfig(Config):
    """Write the episodes of a run into a file."""

    run: Path = Field(description="The run's folder.")
    format: FormatName = Field(description="The file's format; docs/exchange.md says what each keeps.")
    output: Path = Field(description="The file.")
    first: int | None = Field(default=None, ge=1, description="The first groups only.")
    successes: bool = Field(default=False, description="Successful episodes only.")
    success_threshold: float = Field(default=1.0, description="An episode succeeds when its reward reaches this.")
    store: str = Field(default="", description="URL of the run's PostgreSQL with its password, where that is needed.")


class ImportConfig(Config):
    """Make a run folder of the episodes in a file."""

    file: Path = Field(description="The file.")
    format: ReadableName = Field(description="Its format.")
    run_dir: Path = Field(description="The new run's folder.")


def export_command(argv: Sequence[str]) -> None:
    """Write the episodes of a run into a file: chats, ATIF, verifiers, verl, or parquet without loss."""
    from agent_rl.exchange.formats import write_groups
    from agent_rl.progress import counting_progress
    from agent_rl.store.opening import open_journal
    from agent_rl.store.stream import group_indices, read_each

    config = parse_options(ExportConfig, argv, prog="agent-rl export", style=OptionStyle(positional="run"))
    with open_journal(config.run, store=config.store) as journal:
        indices = group_indices(journal)[: config.first]
        with counting_progress(Console(stderr=True), "groups", len(indices)) as show:
            shown = _counted(_chosen(read_each(journal, indices), config), show)
            write_groups(shown, config.output, config.format)
    Console(soft_wrap=True).print(f"{len(indices)} groups are in {config.output}.")


def _counted(groups: Iterator[Group], show: Callable[[int, str], None]) -> Iterator[Group]:
    for done, group in enumerate(groups, 1):
        show(done, "")
        yield group


def _chosen(groups: Iterator[Group], config: ExportConfig) -> Iterator[Group]:
    """With the episodes that the config asks for; a group that loses all of them stays, empty."""
    from agent_rl.evaluate.report import succeeds

    for group in groups:
        if config.successes:
            won = tuple(e for e in group.valid if succeeds(e.reward, config.success_threshold))
            group = replace(group, trajectories=won)
        yield group


def import_command(argv: Sequence[str]) -> None:
    """Make a run folder of the episodes in a file, to look at, score and compare."""
    from agent_rl.exchange.formats import read_groups
    from agent_rl.progress import counting_progress
    from agent_rl.store.opening import create_journal
    from agent_rl.store.run_folder import open_run

    config = parse_options(ImportConfig, argv, prog="agent-rl import", style=OptionStyle(positional="file"))
    groups, count = read_groups(config.file, config.format), 0
    with (
        open_run(config, "import", config.run_dir, resume=False) as folder,
        create_journal(folder, config=config) as journal,
        counting_progress(Console(stderr=True), "groups", None) as show,
    ):
        for group in groups:
            journal.append_group(group)
            count += 1
            show(count, "")
    if not count:
        raise UserError(f"There are no episodes in {config.file}.")
    Console(soft_wrap=True).print(f"{count} groups are in {config.run_dir}.")
