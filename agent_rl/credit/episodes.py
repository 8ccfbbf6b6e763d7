"""The episodes of a batch as flat arrays: what estimators compute on. Knows turns and tokens, no formula.

Only `group.valid` counts: a member lost to an infrastructure failure is in no statistic. Turn boundaries and rewards
are read from the recorded turns, never inferred: a turn with reward 0 is still a turn.

A step is what the environment saw of the model: one turn, and the internal turns before it (a summary of what came
before, say), which share its credit. Internal turns after the last step belong to that one; without any, they earn 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from itertools import islice, pairwise
from operator import attrgetter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agent_rl.credit.alike import Alike
from agent_rl.credit.estimator import Advantages, Float64s, Indices, TurnValues, Values
from agent_rl.credit.scan import discounted_sums, sums
from agent_rl.types import BoolArray, FloatArray, Group, Turn

T = TypeVar("T", bound=np.generic)


class Episodes:
    """The valid episodes of a batch, in the order of groups and members.

    Shapes: E episodes, S steps, K turns, D turns that have tokens, M sampled tokens in the order of turns, N tokens of
    all segments in order.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._members = [group.valid for group in groups]
        self._trajectories = [trajectory for members in self._members for trajectory in members]
        self._turns = [turn for trajectory in self._trajectories for turn in trajectory.turns]
        self.group_E = _numbered([len(members) for members in self._members])
        self._episode_K = _numbered([len(trajectory.turns) for trajectory in self._trajectories])
        self._rewards_K = self._recorded("reward", np.float64)

    def __len__(self) -> int:
        return len(self._trajectories)

    def _recorded(self, name: str, kind: type[T]) -> NDArray[T]:
        """What each turn has under this name."""
        return np.fromiter(map(attrgetter(name), self._turns), kind, len(self._turns))

    # --- episodes ---------------------------------------------------------------------------------------------------

    @cached_property
    def siblings(self) -> Alike:
        """Episodes of one group."""
        return Alike(self.group_E)

    @cached_property
    def rewards_E(self) -> Float64s:
        """Sums of the turns' rewards."""
        return sums(self._episode_K, self._rewards_K, len(self))

    # --- steps ------------------------------------------------------------------------------------------------------

    @cached_property
    def episode_S(self) -> Indices:
        """The episode of each step."""
        return self._episode_K[self._acting_K]

    @cached_property
    def steps_E(self) -> Indices:
        """How many steps each episode has."""
        return np.bincount(self.episode_S, minlength=len(self))

    @cached_property
    def place_S(self) -> Indices:
        """Which step of its episode each one is, from 0."""
        return np.arange(len(self.episode_S)) - (np.cumsum(self.steps_E) - self.steps_E)[self.episode_S]

    @cached_property
    def last_S(self) -> BoolArray:
        """Whether a step is the last of its episode."""
        return self.place_S == self.steps_E[self.episode_S] - 1

    @cached_property
    def rewards_S(self) -> Float64s:
        """What each step earned."""
        return sums(self._step_K + 1, self._rewards_K, len(self.episode_S) + 1)[1:]

    @cached_property
    def outcomes_E(self) -> Float64s:
        """What each episode's last step earned; 0 without one."""
        return sums(self.episode_S[self.last_S], self.rewards_S[self.last_S], len(self))

    @cached_property
    def tags_S(self) -> list[str]:
        """What the environment called each step."""
        return [turn.tag for turn in self._acting_turns]

    def returns_S(self, gamma: float) -> Float64s:
        """What each step and all after it earned, discounted by steps."""
        return discounted_sums(self.rewards_S, self.steps_E, gamma)

    def same_place(self, among_S: BoolArray) -> Alike:
        """Steps of siblings with equally many steps before them. One that is not `among_S` is like no other."""
        place_S = self.group_E[self.episode_S] * (self.steps_E.max(initial=0) + 1) + self.place_S
        return Alike(np.where(among_S, place_S, -1))

    def same_state(self) -> Alike:
        """Steps that siblings, or one episode, took in one state. A state of `None` is like no other."""
        return self._same_key([turn.state_key for turn in self._acting_turns])

    def same_tag(self) -> Alike:
        """Steps of one group with one tag. A step without a tag is like no other."""
        return self._same_key([tag or None for tag in self.tags_S])

    def _same_key(self, keys_S: Sequence[Hashable | None]) -> Alike:
        groups_S = self.group_E[self.episode_S].tolist()
        pairs = zip(groups_S, keys_S, strict=True)
        return Alike.by_key(None if key is None else (group, key) for group, key in pairs)

    @cached_property
    def _acting_turns(self) -> list[Turn]:
        return [self._turns[k] for k in np.flatnonzero(self._acting_K)]

    @cached_property
    def _acting_K(self) -> BoolArray:
        """Whether a turn is the one of its step that the environment saw."""
        return ~self._recorded("internal", np.bool_)

    @cached_property
    def _step_K(self) -> Indices:
        """The step of each turn; -1 in an episode without any."""
        before_K = np.cumsum(self._acting_K) - self._acting_K
        last_K = (np.cumsum(self.steps_E) - 1)[self._episode_K]
        return np.where(self.steps_E[self._episode_K] > 0, np.minimum(before_K, last_K), -1)

    # --- tokens -----------------------------------------------------------------------------------------------------

    @cached_property
    def tokens_E(self) -> Indices:
        """How many tokens each episode sampled."""
        return sums(self._episode_K, self._tokens_K, len(self)).astype(np.int64)

    @cached_property
    def episode_D(self) -> Indices:
        """The episode of each turn that has tokens."""
        return self._episode_K[self._tokens_K > 0]

    @cached_property
    def tokens_D(self) -> Indices:
        """How many tokens each of those turns has."""
        return self._tokens_K[self._tokens_K > 0]

    @cached_property
    def rewards_D(self) -> Float64s:
        """What each of them earned, with the turns without tokens after it. (Before the first, nothing was sampled.)"""
        latest_K = np.cumsum(self._tokens_K > 0) - 1
        counts_K = np.append(self.episode_D, -1)[latest_K] == self._episode_K
        return sums(latest_K[counts_K], self._rewards_K[counts_K], len(self.tokens_D))

    def values_M(self, values: Sequence[Values]) -> Float64s:
        """What a critic says of the context before each sampled token."""
        return self._sampled_M([of_group.tokens for of_group in values])

    def advantages_D(self, values: Sequence[TurnValues]) -> Float64s:
        """What an utterance-level critic says of each turn that has tokens."""
        of_members = [of_member for of_group in values for of_member in of_group.advantages]
        return np.concatenate([*of_members, np.zeros(0)], dtype=np.float64)[self._tokens_K > 0]

    def baseline_M(self, values: Sequence[TurnValues]) -> Float64s:
        """What it says is to be expected before each sampled token; 0 without a baseline."""
        baselines = [of_group.baseline for of_group in values if of_group.baseline is not None]
        return self._sampled_M(baselines) if baselines else np.zeros(len(self._positions_M))

    def _sampled_M(self, laid_out: Sequence[Advantages]) -> Float64s:
        """What stands at the sampled tokens."""
        rows = [row for of_group in laid_out for of_member in of_group for row in of_member]
        return np.concatenate([*rows, np.zeros(0)], dtype=np.float64)[self._positions_M]

    def final_E(self, values: Sequence[Values]) -> Float64s:
        """What a critic says of the state behind each episode: 0 where it ended itself, as nothing comes then."""
        interrupted_E = np.array([trajectory.interrupted for trajectory in self._trajectories], np.bool_)
        final_E = np.concatenate([*(of_group.final_G for of_group in values), np.zeros(0)], dtype=np.float64)
        return np.where(interrupted_E, final_E, 0.0)

    def from_episodes(self, advantages_E: Float64s) -> list[Advantages]:
        """Give all sampled tokens of an episode its advantage."""
        return self._from_turns(advantages_E[self._episode_K])

    def from_steps(self, advantages_S: Float64s) -> list[Advantages]:
        """Give all sampled tokens of a step its advantage."""
        return self._from_turns(np.append(advantages_S, 0.0)[self._step_K])

    def from_tokens(self, advantages_M: Float64s) -> list[Advantages]:
        """Give each sampled token its advantage."""
        advantages_N = np.zeros(self._bounds[-1], np.float32)
        advantages_N[self._positions_M] = advantages_M
        return self._nested(advantages_N)

    def _from_turns(self, advantages_K: Float64s) -> list[Advantages]:
        """A run of zeros and a run of one value in turn: what is between the turns, and the turns."""
        order = np.argsort(self._starts_K, kind="stable")
        starts, lengths = self._starts_K[order], self._tokens_K[order]
        values = np.zeros(2 * len(order) + 1, np.float32)
        values[1::2] = advantages_K[order]
        edges = np.stack([starts, starts + lengths], axis=1).ravel()
        return self._nested(np.repeat(values, np.diff(edges, prepend=0, append=self._bounds[-1])))

    def _nested(self, advantages_N: FloatArray) -> list[Advantages]:
        rows = iter([advantages_N[start:end] for start, end in pairwise(self._bounds)])
        return [
            tuple(tuple(islice(rows, len(trajectory.segments))) for trajectory in members) for members in self._members
        ]

    @cached_property
    def _bounds(self) -> list[int]:
        """Where the segments begin among all tokens, and the end of the last one."""
        lengths = [len(segment.token_ids_T) for t in self._trajectories for segment in t.segments]
        return [0, *np.cumsum(lengths, dtype=np.int64).tolist()]

    @cached_property
    def _tokens_K(self) -> Indices:
        return self._recorded("end", np.int64) - self._recorded("start", np.int64)

    @cached_property
    def _starts_K(self) -> Indices:
        """Where each turn's tokens begin among all tokens; the end of all for a turn without any."""
        segments_E = np.array([len(trajectory.segments) for trajectory in self._trajectories], np.int64)
        first_K = (np.cumsum(segments_E) - segments_E)[self._episode_K]
        segment_K = first_K + self._recorded("segment", np.int64)
        starts_K = np.take(self._bounds, segment_K, mode="clip") + self._recorded("start", np.int64)
        return np.where(self._tokens_K > 0, starts_K, self._bounds[-1])

    @cached_property
    def _positions_M(self) -> Indices:
        """Where the sampled tokens stand among all tokens."""
        shift_K = self._starts_K - (np.cumsum(self._tokens_K) - self._tokens_K)
        return np.repeat(shift_K, self._tokens_K) + np.arange(self._tokens_K.sum())


def _numbered(counts: Sequence[int]) -> Indices:
    """0 so many times, then 1, ..."""
    return np.repeat(np.arange(len(counts)), np.array(counts, np.int64))
