"""Advantages of a batch: ours, the loops of verl, and the memory bandwidth limit.

verl sums rewards over padded rows, collects them in a dict of lists of scalar tensors by prompt, and loops over rows
for the baseline and over time steps, last to first, for GAE. Here both are written anew as it does them, on padded
torch tensors that are there already. Ours starts from recorded episodes and ends with an array for each of their rows,
which is more work; `formula` is the part of it from flat arrays to flat arrays. The limit reads reward, value and mask
of a token and writes its advantage, 4 bytes each, at the rate of a large copy. CPU time of one thread; variants take
turns, the fastest round counts.

    python benchmarks/advantages.py
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from agent_rl.credit import CRITIC_ESTIMATORS, EPISODE_ESTIMATORS, Episodes, Values, get_estimator, to_rows
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import Group

ROUNDS, MEMBERS = 3, 8
GAE = {"gamma": 1.0, "lam": 0.95, "whiten": False}
LINE = "{:10}{:>9}{:>9}{:>10}{:>10}{:>9}{:>10}{:>9}{:>9}{:>8}{:>9}{:>9}"


def cpu_s(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def fastest(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each variant's fastest round."""
    rounds = [{name: cpu_s(work) for name, work in variants.items()} for _ in range(ROUNDS)]
    return {name: min(each[name] for each in rounds) for name in variants}


def make_groups(episodes: int, sampled: int, turns: int = 4) -> list[Group]:
    """Episodes of `turns` turns, of log-normal length with `sampled` tokens on average; half as much context."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(turns, rng.lognormal(0, 0.6, episodes) / np.exp(0.18) * sampled).astype(int)
    made = [
        make_trajectory(
            [
                Played(float(rng.random() < 0.4), sampled=length // turns, context=max(1, length // turns // 2))
                for _ in range(turns)
            ],
            member=number % MEMBERS,
        )
        for number, length in enumerate(lengths.tolist())
    ]
    return [make_group(*made[start : start + MEMBERS], index=start) for start in range(0, episodes, MEMBERS)]


class Padded:
    """The batch as verl has it: one row per episode, padded to the longest; the reward of a turn on its last token."""

    def __init__(self, groups: Sequence[Group]) -> None:
        episodes = [trajectory for group in groups for trajectory in group.valid]
        width = max(trajectory.sampled_tokens for trajectory in episodes)
        self.index = np.repeat([f"prompt {group.index}" for group in groups], MEMBERS)
        self.rewards, self.mask = torch.zeros(len(episodes), width), torch.zeros(len(episodes), width)
        for row, trajectory in enumerate(episodes):
            ends = np.cumsum([turn.end - turn.start for turn in trajectory.turns])
            self.rewards[row, torch.from_numpy(ends - 1)] = torch.tensor([turn.reward for turn in trajectory.turns])
            self.mask[row, : ends[-1]] = 1
        self.values = torch.randn(self.mask.shape, generator=torch.Generator().manual_seed(0)) * self.mask

    def grpo(self) -> torch.Tensor:
        """By a dict of lists, one scalar tensor at a time."""
        scores = self.rewards.sum(dim=-1)
        of_prompt: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
        for row in range(len(scores)):
            of_prompt[self.index[row]].append(scores[row])
        mean = {prompt: torch.mean(torch.stack(each)) for prompt, each in of_prompt.items()}
        std = {prompt: torch.std(torch.stack(each)) for prompt, each in of_prompt.items()}
        for row in range(len(scores)):
            scores[row] = (scores[row] - mean[self.index[row]]) / (std[self.index[row]] + 1e-6)
        return scores.unsqueeze(-1) * self.mask

    def rloo(self) -> torch.Tensor:
        """By a dict of lists, one scalar tensor at a time."""
        scores = self.rewards.sum(dim=-1)
        of_prompt: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
        for row in range(len(scores)):
            of_prompt[self.index[row]].append(scores[row])
        mean = {prompt: torch.mean(torch.stack(each)) for prompt, each in of_prompt.items()}
        for row in range(len(scores)):
            count = len(of_prompt[self.index[row]])
            scores[row] = scores[row] * count / (count - 1) - mean[self.index[row]] * count / (count - 1)
        return scores.unsqueeze(-1) * self.mask

    def token_gae(self) -> torch.Tensor:
        """By a loop over time steps, each for all rows; padding keeps what came after it."""
        following, running = torch.zeros(len(self.values)), torch.zeros(len(self.values))
        backwards: list[torch.Tensor] = []
        for t in reversed(range(self.values.shape[1])):
            delta = self.rewards[:, t] + GAE["gamma"] * following - self.values[:, t]
            new = delta + GAE["gamma"] * GAE["lam"] * running
            following = self.values[:, t] * self.mask[:, t] + (1 - self.mask[:, t]) * following
            running = new * self.mask[:, t] + (1 - self.mask[:, t]) * running
            backwards.append(running)
        return torch.stack(backwards[::-1], dim=1) * self.mask

    def as_values(self, groups: Sequence[Group]) -> list[Values]:
        """The same values, laid out for our estimators."""
        rows = iter(self.values.numpy())
        of_groups: list[Values] = []
        for group in groups:
            members = []
            for trajectory in group.valid:
                [segment] = trajectory.segments
                row = np.zeros(len(segment.token_ids_T), np.float32)
                row[segment.response_mask_T] = next(rows)[: trajectory.sampled_tokens]
                members.append((row,))
            of_groups.append(Values(tuple(members), np.zeros(len(members), np.float32)))
        return of_groups


def difference(ours: list, theirs: torch.Tensor, groups: Sequence[Group]) -> float:
    """The largest, over all sampled tokens."""
    rows = [rows[0] for advantages in ours for rows in advantages]
    masks = [t.segments[0].response_mask_T for group in groups for t in group.valid]
    each = zip(rows, masks, theirs.numpy(), strict=True)
    return max(float(np.abs(row[mask] - padded[: mask.sum()]).max()) for row, mask, padded in each)


def copy_rate() -> float:
    """Bytes per second that a large copy reads and writes."""
    source = np.ones(16 << 20, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / min(cpu_s(lambda: np.copyto(target, source)) for _ in range(ROUNDS))


def measure(name: str, groups: Sequence[Group], padded: Padded) -> None:
    """Print a line of the table for this estimator on this batch."""
    options: dict[str, Any] = GAE if name == "token_gae" else {}
    ours, theirs, values = get_estimator(name, options), getattr(padded, name), padded.as_values(groups)
    episodes = Episodes(groups)
    arrays = (episodes.values_M(values), episodes.final_E(values)) if name == "token_gae" else ()
    formula = partial({**EPISODE_ESTIMATORS, **CRITIC_ESTIMATORS}[name], episodes, *arrays, **options)
    formula()  # what it reads is laid out by now
    seconds = fastest({"verl": theirs, "ours": lambda: ours(groups, values), "formula": formula})
    largest = difference(ours(groups, values), theirs(), groups)
    report(name, len(padded.mask), int(padded.mask.sum()), seconds, f"{largest:.0e}")


def measure_rows(groups: Sequence[Group]) -> None:
    """From advantages to training rows; all tokens count, as weights are made for all."""
    advantages = get_estimator("grpo")(groups)
    seconds = fastest({"ours": lambda: to_rows(groups, advantages, "token_mean")})
    lengths = [len(t.segments[0].token_ids_T) for group in groups for t in group.valid]
    report("to_rows", len(lengths), sum(lengths), seconds)


def report(name: str, episodes: int, tokens: int, seconds: dict[str, float], largest: str = "") -> None:
    """One line: time per episode, time per token, how many times faster."""
    names = ("verl", "ours", "formula")
    each_us = [f"{seconds[n] / episodes * 1e6:.2f}" if n in seconds else "" for n in names]
    each_ns = [f"{seconds[n] / tokens * 1e9:.1f}" if n in seconds else "" for n in names]
    faster = [f"{seconds['verl'] / seconds[n]:.0f}x" if "verl" in seconds else "" for n in names[1:]]
    print(LINE.format(name, episodes, tokens, *each_us, *each_ns, *faster, largest))


def main() -> None:
    torch.set_num_threads(1)
    print(f"limit: 3 reads and a write of 4 bytes, {16 / copy_rate() * 1e9:.2f} ns/token")
    print(LINE.format("", "", "", "", "us/episode", "", "", "ns/token", "", "faster", "", "differ-"))
    variants = ("verl", "ours", "formula")
    print(LINE.format("", "episodes", "tokens", *variants, *variants, *variants[1:], "ence"))
    for episodes, sampled in ((8192, 64), (256, 4096), (32, 8192)):
        groups = make_groups(episodes, sampled)
        padded = Padded(groups)
        for name in ("grpo", "rloo", "token_gae"):
            measure(name, groups, padded)
        measure_rows(groups)


if __name__ == "__main__":
    main()
