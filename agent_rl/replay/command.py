"""`agent-rl replay`. Imports what it runs when it runs it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
from pydantic import Field, model_validator
from rich.console import Console
from rich.text import Text

from agent_rl.config import Config
from agent_rl.errors import ConfigError, UserError
from agent_rl.options import OptionStyle, parse_options

if TYPE_CHECKING:
    from agent_rl.environment import EnvironmentSpec
    from agent_rl.replay.differences import Difference
    from agent_rl.replay.rescore import Rescored, Rescoring
    from agent_rl.replay.settings import RunSettings
    from agent_rl.store.journal import Journal
    from agent_rl.types import Trajectory

_SHOWN = 10


class ReplayConfig(Config):
    """Play a stored episode again, or score stored episodes with another reward."""

    what: tuple[str, ...] = Field(
        default=(), description="The run's folder; then the episode as GROUP.MEMBER, such as 3.0."
    )
    environment: str = Field(default="", description="Another environment's id; that of the run, if empty.")
    environment_options: dict[str, int | float | bool | str] = Field(
        default_factory=dict, description="Options of the environment that differ from those of the run."
    )
    engine: bool = Field(default=False, description="Let the policy sample the episode again, and compare every bit.")
    model: str = Field(
        default="", description="Checkpoint or run folder with the weights that sampled it; those of the run, if empty."
    )
    reward: str = Field(
        default="", description="Score the episodes with package.module:function, which gets a trajectory."
    )
    success_threshold: float = Field(default=1.0, description="An episode succeeds when its reward reaches this.")
    output: Path | None = Field(default=None, description="Write a row for each episode that is scored (.jsonl).")
    store: str = Field(default="", description="URL of the run's PostgreSQL with its password, where that is needed.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if not 1 <= len(self.what) <= 2:
            raise ValueError("name the run's folder and the episode: agent-rl replay runs/NAME 3.0.")
        if len(self.what) == 2 and re.fullmatch(r"\d+\.\d+", self.what[1]) is None:
            raise ValueError(f"{self.what[1]!r} is no episode: write GROUP.MEMBER, such as 3.0.")
        if len(self.what) == 1 and not self.reward:
            raise ValueError("name the episode, as in agent-rl replay runs/NAME 3.0, or a reward to score all with.")
        if self.reward and self.engine:
            raise ValueError("reward scores what is stored: leave out engine.")
        if self.output is not None and not self.reward:
            raise ValueError("output is for the rows of a reward: name one with reward.")
        return self

    @property
    def run(self) -> Path:
        """The run's folder."""
        return Path(self.what[0])

    @property
    def episode(self) -> tuple[int, int] | None:
        """Group and member, if one was named."""
        if len(self.what) == 1:
            return None
        group, _, member = self.what[1].partition(".")
        return int(group), int(member)


def replay_command(argv: Sequence[str]) -> None:
    """Play a stored episode again and show the first difference, or score stored episodes with another reward."""
    from agent_rl.store.opening import open_journal

    config = parse_options(ReplayConfig, argv, prog="agent-rl replay", style=OptionStyle(positional="what"))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with open_journal(config.run, store=config.store, read_only=True) as journal:
        if config.reward:
            return _print_rescoring(_rescore(config, journal), config, console)
        assert config.episode is not None, "the config says so"
        episode, played = _find(journal, *config.episode), journal.environment()
    results = _replay(config, episode, played)
    for name, difference in results.items():
        console.print(f"{name}: {difference or 'the same'}")
    if any(results.values()):
        sys.exit(1)


def _find(journal: Journal, group: int, member: int) -> Trajectory:
    found = journal.read_groups([group]).get(group)
    members = {} if found is None else {episode.member: episode for episode in found.trajectories}
    if member not in members:
        raise UserError(f"There is no episode {group}.{member} in the run: groups and members count from 0.")
    return members[member]


def _replay(
    config: ReplayConfig, episode: Trajectory, played: Mapping[str, Any] | None
) -> Mapping[str, Difference | None]:
    from agent_rl.evaluate.actor import model_source
    from agent_rl.replay.episode import model_of, replay, resample
    from agent_rl.replay.settings import read_settings

    settings = read_settings(config.run)
    model = ""
    if config.engine:
        model = model_source(config.model) if config.model else model_of(config.run, episode, settings)
    environment = _environment(config, episode, settings, played)
    results: dict[str, Any] = {"environment": anyio.run(replay, environment, episode, settings)}
    if config.engine:
        results["engine"] = anyio.run(resample, environment, episode, settings, model)
    return results


def _environment(
    config: ReplayConfig, episode: Trajectory, settings: RunSettings, played: Mapping[str, Any] | None
) -> EnvironmentSpec:
    from agent_rl.registry import environment_from_json, environment_spec

    if played is not None and not config.environment:
        return environment_from_json(played, config.environment_options)
    id = config.environment or settings.environment or episode.task.environment
    if not id:
        raise ConfigError("The run does not say which environment it played: name it with --environment.")
    return environment_spec(id, {**settings.environment_options, **config.environment_options})


# --- another reward ---


def _rescore(config: ReplayConfig, journal: Journal) -> Rescoring:
    from agent_rl.progress import counting_progress
    from agent_rl.replay.rescore import load_reward, rescored, summarize
    from agent_rl.store.stream import group_indices, read_each

    reward = load_reward(config.reward)
    if config.output is not None and not config.output.parent.is_dir():
        raise ConfigError(f"{config.output} cannot be written: its folder does not exist.")
    if config.episode is not None:
        episode = _find(journal, *config.episode)
        group = journal.read_groups([episode.group_index])[episode.group_index]
        groups = iter([type(group)(group.index, group.task, (episode,))])
        return summarize(rescored(groups, reward), config.success_threshold, config.output)
    indices = group_indices(journal)
    with counting_progress(Console(stderr=True), "tasks", len(indices)) as show:
        shown = (show(done, "") or group for done, group in enumerate(read_each(journal, indices), 1))
        return summarize(rescored(shown, reward), config.success_threshold, config.output)


def _print_rescoring(found: Rescoring, config: ReplayConfig, console: Console) -> None:
    console.print(Text(f"{found.episodes} episodes, means over tasks with 95 percent intervals", "bold"))
    for name, estimate in (("stored", found.old), (config.reward, found.new)):
        console.print(f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})  {name}")
    console.print(f"{len(found.gained)} episodes succeed now, {len(found.lost)} no longer.")
    for word, rows in (("gained", found.gained), ("lost", found.lost)):
        for row in rows[:_SHOWN]:
            console.print(f"  {word} {_episode(row)}")
    if config.output is not None:
        console.print(f"Rows are in {config.output}.")


def _episode(row: Rescored) -> str:
    return f"{row['group']}.{row['member']} {row['task']!r}: {row['old']:g} -> {row['new']:g}"
