"""ArCHer against policy gradients of whole episodes: how many samples until a game of many turns is won?

A corridor of rooms: in each, the colour of a sign says which of four doors leads on, which nobody knows at first; the
only reward comes with the last room. A policy gradient of whole episodes praises or blames all moves alike; ArCHer's
critic learns from every turn of the latest episodes how far each room is from the end, so that a move is worth what it
gained. All methods begin with the same policy, which says the room and the sign and then takes any door, as the agent
does that it imitates, with the same actor and the same episodes per step.
What is finished is not run again: more seeds or methods can be added to a folder with `--resume`.

    agent-rl train archer --run-dir runs/archer                                   # the table and the picture
    agent-rl train archer --run-dir runs/archer --resume --seeds 10               # five more seeds
    agent-rl train archer --methods archer --archer.utterance-critic.loss hl_gauss
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import anyio
import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table

from agent_rl.cli import run_recipe
from agent_rl.config import Config as BaseConfig
from agent_rl.curriculum import shuffled_epochs
from agent_rl.environment import EnvironmentSpec
from agent_rl.evaluate.comparison import Curve, Samples, draw_curves, read_curve, samples_to
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.utterance_critic import UtteranceCriticConfig
from agent_rl.progress import training_progress
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.starting_policy import START, Imitation, starting_policy
from agent_rl.store.metrics import JSONL
from agent_rl.store.run_folder import open_run
from agent_rl.train import train
from agent_rl.train_config import TrainConfig
from agent_rl.types import JSON, Message
from agent_rl.warm_start import WarmStartConfig
from agent_rl_envs.games.game import Game, GameConfig, Malformed, Outcome, Puzzle, move_of

Method = Literal["archer", "rloo", "grpo"]
LIMITS = RolloutLimits(max_turns=24, max_response_tokens=12, max_context_tokens=512)
DOORS = {"red": "north", "blue": "south", "green": "west", "yellow": "east"}
HOW = "Say the room, its sign and a door."
FREE = ("run_dir", "resume", "methods", "seeds", "picture", "target", "window")  # what may differ on resume


class CorridorConfig(GameConfig):
    """Options of the corridor."""

    rooms: int = Field(default=4, ge=1, description="Rooms one after the other.")
    moves: int = Field(default=8, ge=1, description="Moves that are allowed.")


class Corridor(Game[CorridorConfig, int]):
    """Every room has a sign, whose colour says which door leads on; nobody says how. The state is the room."""

    id = "corridor"
    config_type = CorridorConfig

    @classmethod
    def puzzle(cls, rng: np.random.Generator, config: CorridorConfig) -> Puzzle:
        """Any colours."""
        signs = [list(DOORS)[i] for i in rng.integers(len(DOORS), size=config.rooms)]
        prompt = f"{config.rooms} rooms, {config.moves} moves. {HOW}\n{_seen(signs, 0)}"
        return Puzzle({"signs": signs}, prompt, config.moves)

    def start(self, data: JSON, seed: int) -> int:
        """The first room."""
        self._signs: list[str] = data["signs"]
        return 0

    def play(self, text: str) -> Outcome[int]:
        """Through the right door into the next room; a wrong one costs the move."""
        words = move_of(text).split()
        if words[:2] != self._named() or words[2:] not in [[door] for door in DOORS.values()]:
            raise Malformed(f"{HOW}\n{_seen(self._signs, self.state)}")
        room = self.state + (words[2] == DOORS[self._signs[self.state]])
        if room == len(self._signs):
            return Outcome(room, "You are out.", solved=True)
        return Outcome(room, _seen(self._signs, room))

    def oracle_action(self) -> Message:
        """The door that leads on."""
        return self._through(DOORS[self._signs[self.state]])

    def random_action(self, rng: np.random.Generator) -> Message:
        """Any door."""
        return self._through(list(DOORS.values())[int(rng.integers(len(DOORS)))])

    def _named(self) -> list[str]:
        return [str(self.state + 1), self._signs[self.state]]

    def _through(self, door: str) -> Message:
        return Message("assistant", " ".join([*self._named(), door]))


def _seen(signs: Sequence[str], room: int) -> str:
    return f"Room {room + 1}: {signs[room]}."


class Training(TrainConfig):
    """What all methods share: the actor, the episodes, how long."""

    steps: int = Field(default=120, ge=1, description="Training steps.")
    groups_per_batch: int = Field(default=4, ge=1, description="Groups in one batch.")
    limits: RolloutLimits = Field(default=LIMITS, description="Limits of one episode.")
    learner: LearnerConfig = Field(
        default=LearnerConfig(learning_rate=1e-3, warmup_steps=10, minibatches=4, betas=(0.9, 0.95)),
        description="Loss and optimiser.",
    )
    checkpoint_every: int = Field(default=1000, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(default=1, ge=1, description="Checkpoints that stay on disk.")


class Archer(Training):
    """The actor with an utterance-level critic."""

    steps: int = Field(default=60, ge=1, description="Training steps.")
    estimator: str = Field(default="archer", description="Credit.")
    estimator_options: dict[str, float] = Field(
        default={"whiten": True, "positive": True}, description="Options of the credit."
    )
    utterance_critic: UtteranceCriticConfig = Field(
        default=UtteranceCriticConfig(
            learning_rate=1e-3,
            betas=(0.9, 0.95),
            advantage="td",
            double="independent",
            tau=0.5,
            updates=8,
            groups_per_update=4,
            alone_steps=5,
        ),
        description="How values of whole turns are learned.",
    )


class Rloo(Training):
    """REINFORCE with the mean of the other episodes of a task as baseline."""

    estimator: str = Field(default="rloo", description="Credit.")


class Grpo(Training):
    """The same, divided by the deviation."""

    estimator: str = Field(default="grpo", description="Credit.")


class Config(BaseConfig):
    """Compare ArCHer with policy gradients of whole episodes."""

    methods: tuple[Method, ...] = Field(default=("archer", "rloo"), description="What is compared.")
    seeds: int = Field(default=5, ge=1, description="Runs of each method, with the seeds 0, 1, ... after its own.")
    archer: Archer = Field(default_factory=Archer, description="Options of archer.")
    rloo: Rloo = Field(default_factory=Rloo, description="Options of rloo.")
    grpo: Grpo = Field(default_factory=Grpo, description="Options of grpo.")
    game: CorridorConfig = Field(default=CorridorConfig(), description="The corridor.")
    hidden_size: int = Field(default=32, ge=32, description="Width of the tiny policy.")
    warm_start: WarmStartConfig = Field(
        default=WarmStartConfig(
            demonstrations=200,
            batch_rows=12,
            max_steps=300,
            last_steps=30,
            check_every=60,
            check_episodes=32,
            learner=LearnerConfig(learning_rate=5e-3, warmup_steps=50, betas=(0.9, 0.95)),
        ),
        description="Imitation of an agent that moves at random, from which all runs start.",
    )
    target: float = Field(default=0.8, gt=0, le=1, description="Success that counts as having learnt the game.")
    window: int = Field(default=5, ge=1, description="Steps over which success is averaged.")
    run_dir: Path | None = Field(default=None, description="The folder; none: a new one under runs/.")
    resume: bool = Field(default=False, description="Go on in run_dir, or in the latest folder.")
    picture: Path | None = Field(default=None, description="Where the learning curves go; none: into the folder.")


def main(config: Config) -> None:
    """Run what is not finished, then compare."""
    torch.set_num_threads(1)
    with open_run(config, "archer", config.run_dir, resume=config.resume, free=FREE) as folder:
        _compare(config, folder, Console())


def _compare(config: Config, folder: Path, console: Console) -> None:
    curves = anyio.run(_run_all, config, folder, console)
    picture = config.picture or folder / "archer.svg"
    draw_curves(curves, picture, target=config.target, window=config.window)
    samples = {name: samples_to(found, config.target, config.window) for name, found in curves.items()}
    (folder / "report.json").write_text(json.dumps(_report(samples, config), indent=2) + "\n", encoding="utf-8")
    console.print(_table(samples, config), f"The curves are in {picture}.")


async def _run_all(config: Config, folder: Path, console: Console) -> dict[str, list[Curve]]:
    environment = EnvironmentSpec(Corridor, config.game)
    imitation = Imitation(environment, config.warm_start, LIMITS, 0)
    await starting_policy(
        imitation, folder, console, hidden_size=config.hidden_size, vocabulary=(*DOORS, *DOORS.values())
    )
    curves: dict[str, list[Curve]] = {name: [] for name in config.methods}
    for seed in range(config.seeds):  # all methods of one seed first: an interrupted comparison is a fair one
        for name in config.methods:
            method: Training = getattr(config, name)
            training = method.model_copy(update={"seed": method.seed + seed})
            curves[name].append(await _run(training, environment, folder, console))
    return curves


async def _run(config: Training, environment: EnvironmentSpec, folder: Path, console: Console) -> Curve:
    """One run, or what it was if it is finished."""
    from agent_rl.learner.policy import load_policy

    run_dir = folder / f"{config.estimator}-{config.seed}"
    if not _finished(run_dir / JSONL, config.steps):
        model, tokenizer = load_policy(folder / START)
        tasks = environment.tasks("train", config.steps * config.groups_per_batch, 0)
        with training_progress(console, config.steps, run_dir.name) as on_step:
            await train(
                config,
                run_dir=run_dir,
                model=model,
                tokenizer=tokenizer,
                environment=environment,
                task_at=shuffled_epochs(tasks, config.seed),
                resume=True,
                on_step=on_step,
            )
    return read_curve(run_dir / JSONL)


def _finished(metrics_file: Path, steps: int) -> bool:
    return metrics_file.is_file() and len(metrics_file.read_text(encoding="utf-8").splitlines()) >= steps


def _report(samples: Mapping[str, Samples], config: Config) -> dict[str, Any]:
    return {
        "target": config.target,
        "window": config.window,
        "methods": {name: asdict(found) for name, found in samples.items()},
    }


def _table(samples: Mapping[str, Samples], config: Config) -> Table:
    table = Table(title=f"Samples until {config.target:.0%} success, mean of the seeds with 95% t intervals")
    for column in ("method", "seeds that got there", "episodes", "turns"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, found in samples.items():
        bound = "" if found.reached == found.runs else ">= "
        counts = [f"{bound}{of.value:,.0f} [{of.low:,.0f}, {of.high:,.0f}]" for of in (found.episodes, found.turns)]
        table.add_row(name, f"{found.reached} of {found.runs}", *counts)
    return table


if __name__ == "__main__":
    run_recipe(Config, main)
