"""Curricula against uniform sampling: episodes until a tiny policy reaches a target, paired by seed.

The policy is tabular. A task of a domain of depth k is solved when each of k choices in a row is the right one of
three, so that a domain of depth 6 begins with a success of 1 in 729. On a ladder a deeper domain begins with the
choices of the shallower ones, and the target is the deepest one's success; domains may also share nothing, and the
target is that of the worst. Learning is REINFORCE with advantages by `grpo`, or for `gvm`, as in its paper, the
likelihood of what succeeded. The curricula are the shipped ones, told as the training loop tells them.

Costs are episodes; for the horizon they are turns, since that is what it saves: an episode that goes wrong goes on
until its limit. A ratio is the geometric mean over seeds, with Student's t for its logarithm.

    python benchmarks/curricula.py                             # the table
    python benchmarks/curricula.py --across                    # each kind on the ladder and in separate domains
    python benchmarks/curricula.py --picture curriculum.svg    # what becomes of the mix
    python benchmarks/curricula.py --only sec,gvm --seeds 10
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent_rl.credit import get_estimator
from agent_rl.curriculum import KINDS, Curriculum
from agent_rl.curriculum.config import CurriculumConfig
from agent_rl.evaluate.statistics import Estimate, mean
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import FinishReason, Group, Message, Segment, StopReason, Task, Trajectory, Turn

GROUPS, MEMBERS, CHOICES, RATE = 8, 8, 3, 0.5
TARGET, PATIENCE = 0.8, 4000  # success, and steps until a run is given up
ESTIMATOR = get_estimator("grpo")


@dataclass(frozen=True)
class World:
    """Domains by depth: whether they share their choices, what is learned from, and what is counted."""

    depths: tuple[int, ...]
    shared: bool
    accepted_only: bool = False
    in_turns: bool = False

    @property
    def unit(self) -> str:
        """What is counted."""
        return "turns" if self.in_turns else "episodes"

    @property
    def tasks(self) -> list[Task]:
        """Four of each domain; the policy does not tell them apart."""
        return [
            Task(f"{domain}-{number}", (), {"domain": domain}, tags=(f"depth:{depth}",))
            for domain, depth in enumerate(self.depths)
            for number in range(4)
        ]


LADDER = World((1, 2, 3, 4, 5, 6), shared=True)
LONG = World((2, 4, 6, 8, 10, 12), shared=True, in_turns=True)
SEPARATE = World((1, 1, 1, 2, 2, 4), shared=False)
ACCEPTED = World((1, 1, 2, 2, 3, 4), shared=False, accepted_only=True)
LIMITS = RolloutLimits(max_turns=12)

CASES = {
    "sec": (LADDER, CurriculumConfig(kind="sec")),
    "dump": (LADDER, CurriculumConfig(kind="dump")),
    "band": (LADDER, CurriculumConfig(kind="band")),
    "domain_weights": (SEPARATE, CurriculumConfig(kind="domain_weights")),
    "weakness": (SEPARATE, CurriculumConfig(kind="weakness", domain="task")),
    "gvm": (ACCEPTED, CurriculumConfig(sizes="gvm")),
    "horizon": (LONG, CurriculumConfig(first_turns=2, growth_steps=200)),
}
"""Each curriculum, with its defaults, in the world in which it is to help."""


class Policy:
    """Logits (rows, depth, choices): one row for all domains, or one for each."""

    def __init__(self, world: World) -> None:
        self.world = world
        rows = 1 if world.shared else len(world.depths)
        self.logits = np.zeros((rows, max(world.depths), CHOICES))

    def success(self) -> NDArray[np.float64]:
        """Of each domain, exactly. The right choice is the first."""
        right = self._chances()[:, :, 0]
        return np.array([right[self._row(d), :depth].prod() for d, depth in enumerate(self.world.depths)])

    def play(
        self, group: int, task: Task, size: int, horizon: int, rng: np.random.Generator
    ) -> tuple[Group, list[int]]:
        """A group of episodes, and how many turns each of them took."""
        domain = task.data["domain"]
        depth = self.world.depths[domain]
        steps = min(depth, horizon)
        chances = self._chances()[self._row(domain), :steps]
        taken = (rng.random((size, steps, 1)) > chances.cumsum(axis=1)[None]).sum(axis=2)
        solved = (taken == 0).all(axis=1) & (depth <= horizon)
        logprobs = np.log(np.take_along_axis(chances[None], taken[:, :, None], axis=2)[:, :, 0])
        episodes = [
            _episode(task, group, member, taken[member], logprobs[member], float(solved[member]))
            for member in range(size)
        ]
        return Group(group, task, tuple(episodes)), np.where(solved, depth, horizon).tolist()

    def learn(self, groups: Sequence[Group], advantages: Sequence[NDArray[np.float64]]) -> None:
        """One step along the mean of the groups' gradients."""
        gradient, chances = np.zeros_like(self.logits), self._chances()
        for group, of_members in zip(groups, advantages, strict=True):
            row = self._row(group.task.data["domain"])
            taken = np.stack([episode.segments[0].token_ids_T for episode in group.trajectories])
            chosen = np.eye(CHOICES)[taken] - chances[row, : taken.shape[1]]
            gradient[row, : taken.shape[1]] += np.tensordot(of_members, chosen, 1) / len(groups)
        self.logits += RATE * gradient

    def _row(self, domain: int) -> int:
        return 0 if self.world.shared else domain

    def _chances(self) -> NDArray[np.float64]:
        odds = np.exp(self.logits)
        return odds / odds.sum(axis=-1, keepdims=True)


@dataclass
class Run:
    """What one run cost until the target, and which domains it played in each step."""

    cost: float = 0.0
    shares: list[NDArray[np.float64]] = field(default_factory=list)


def run(world: World, config: CurriculumConfig, seed: int) -> Run:
    """Train until the target. Raises `RuntimeError` when it is never reached."""
    tasks, policy, rng = world.tasks, Policy(world), np.random.default_rng(seed)
    options = {"seed": seed, "group_size": MEMBERS, "least": 2, "limits": LIMITS, "success": 1.0}
    curriculum: Curriculum = config.open(tasks, change=lambda sampler: sampler, **options)
    limits_at = config.limits_at(LIMITS) or (lambda step: LIMITS)
    curriculum.begin(GROUPS)
    done = Run()
    for step in range(PATIENCE):
        groups: list[Group] = []
        for index in range(step * GROUPS, (step + 1) * GROUPS):
            task, size = curriculum.task_at(index), curriculum.group_size(index)
            group, turns = policy.play(index, task, size, limits_at(step).max_turns, rng)
            groups.append(group)
            done.cost += sum(turns) if world.in_turns else size
        credit = ESTIMATOR(groups)
        curriculum.observe(groups, {g.index: rows for g, rows in zip(groups, credit, strict=True)})
        curriculum.admit(GROUPS)
        policy.learn(groups, [_weights(g, rows, world) for g, rows in zip(groups, credit, strict=True)])
        played = np.bincount([g.task.data["domain"] for g in groups], minlength=len(world.depths))
        done.shares.append(played / GROUPS)
        success = policy.success()
        if (success[-1] if world.shared else success.min()) >= TARGET:
            return done
    raise RuntimeError(f"{config.kind} did not reach {TARGET:.0%} in {PATIENCE} steps with seed {seed}")


def ratio(costs: Sequence[float], others: Sequence[float]) -> Estimate:
    """costs / others, pair by pair: the geometric mean and its interval."""
    logs = mean(np.log(np.array(costs) / np.array(others)))
    return Estimate(*(float(np.exp(value)) for value in (logs.value, logs.low, logs.high)))


def _weights(group: Group, rows: Sequence[Sequence[NDArray[np.float32]]], world: World) -> NDArray[np.float64]:
    """What each episode's gradient is multiplied with."""
    if world.accepted_only:
        solved = np.array([episode.reward for episode in group.trajectories])
        return solved / max(1.0, solved.sum())
    return np.array([row[0][-1] for row in rows], np.float64) / len(rows)


def _episode(
    task: Task, group: int, member: int, taken: NDArray[np.int64], logprobs: NDArray[np.float64], reward: float
) -> Trajectory:
    sampled = np.ones(len(taken), np.bool_)
    segment = Segment(taken.astype(np.int32), sampled, logprobs.astype(np.float32), np.zeros(len(taken), np.int32))
    action = Message("assistant", "")
    turn = Turn(0, 0, 0, len(taken), action, (), reward, {}, (), FinishReason.STOP)
    return Trajectory(task, group, member, 0, (), (segment,), (turn,), StopReason.TERMINATED)


def costs_of(world: World, config: CurriculumConfig, seeds: int) -> list[float]:
    """One for each seed."""
    return [run(world, config, seed).cost for seed in range(seeds)]


def show(found: Estimate) -> str:
    """As in the tables."""
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def compare(names: Sequence[str], seeds: int) -> None:
    """Each curriculum in the world of its own."""
    print("| curriculum | until the target | with it | uniform | ratio |\n|---|---|---|---|---|")
    for name in names:
        world, config = CASES[name]
        costs, uniform = (costs_of(world, each, seeds) for each in (config, CurriculumConfig()))
        shown = f"{np.mean(costs):,.0f} | {np.mean(uniform):,.0f}"
        print(f"| `{name}` | {world.unit} | {shown} | {show(ratio(costs, uniform))} |", flush=True)


def compare_across(seeds: int) -> None:
    """Each kind in both kinds of worlds."""
    worlds = (LADDER, SEPARATE)
    uniform = [costs_of(world, CurriculumConfig(), seeds) for world in worlds]
    print("| curriculum | on the ladder | separate domains |\n|---|---|---|")
    for kind in KINDS:
        config = CurriculumConfig(kind=kind, domain="task" if kind == "weakness" else "tags")  # pyright: ignore
        ratios = [show(ratio(costs_of(w, config, seeds), base)) for w, base in zip(worlds, uniform, strict=True)]
        print(f"| `{kind}` | {' | '.join(ratios)} |", flush=True)


def draw(path: Path, seeds: int) -> None:
    """Which domains are played as training goes, uniform and under SEC; means of seeds, until half are done."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "curricula"  # the same file each time
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True, layout="constrained")
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(LADDER.depths)))
    names = [f"depth {depth}" for depth in LADDER.depths]
    for axis, name, config in zip(axes, ("uniform", "sec"), (CurriculumConfig(), CASES["sec"][1]), strict=True):
        runs = [run(LADDER, config, seed).shares for seed in range(seeds)]
        steps = range(0, int(np.median([len(shares) for shares in runs])), 5)
        mix = [np.mean([share for shares in runs for share in shares[step : step + 5]], axis=0) for step in steps]
        axis.stackplot(np.array(steps) * GROUPS * MEMBERS, np.transpose(mix), colors=colors, labels=names)
        axis.set(title=name, xlabel="episodes", xlim=(0, 8500), ylim=(0, 1))
    axes[0].set_ylabel("share of the groups")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", reverse=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES), help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--across", action="store_true", help="each kind in each kind of world")
    parser.add_argument("--picture", type=Path, help="draw this instead")
    options = parser.parse_args()
    if options.picture is not None:
        draw(options.picture, options.seeds)
        return
    if options.across:
        compare_across(options.seeds)
    else:
        compare(options.only.split(","), options.seeds)


if __name__ == "__main__":
    main()
