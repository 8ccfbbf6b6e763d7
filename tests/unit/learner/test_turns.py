"""Turns and targets on their way from trajectories to trained tokens."""

from dataclasses import replace

import numpy as np
import torch

from agent_rl.credit.rows import to_rows, with_returns
from agent_rl.learner.batch import pack
from agent_rl.learner.tensors import to_tensors
from agent_rl.testing.episodes import Played, make_group, make_trajectory


def test_rows_name_the_turn_of_each_sampled_token(make_rows):
    group = make_group(make_trajectory([Played(reward=0, sampled=2), Played(reward=1, sampled=3)], member=0))
    zeros = [tuple(tuple(np.zeros(len(s.token_ids_T), np.float32) for s in t.segments) for t in group.valid)]
    [row] = to_rows([group], zeros, "token_mean")
    assert row.turns_T is not None
    assert np.array_equal(row.turns_T >= 0, row.response_mask_T)
    spans = [row.turns_T[turn.start : turn.end].tolist() for turn in group.valid[0].turns]
    assert spans == [[0, 0], [1, 1, 1]]
    returns = [((np.arange(len(row.token_ids_T), dtype=np.float32),),)]
    [with_targets] = with_returns([row], [group], returns)
    assert with_targets.returns_T.tolist() == list(range(len(row.token_ids_T)))


def test_turns_are_counted_through_a_batch(make_rows):
    first, second, third = make_rows([9, 6, 4])
    turns = np.array([-1, 0, 0, 0, 1, 1, 3, 3, 3], np.int32)
    every = [replace(row, weights_T=np.append(0, np.ones(len(row.token_ids_T) - 1)).astype("f4"))
             for row in (first, second, third)]  # fmt: skip
    rows = [replace(every[0], turns_T=turns), every[1], replace(every[2], turns_T=np.zeros(4, np.int32))]
    [packed] = pack(rows, 100)
    assert packed.turns_K.tolist() == [0, 0, 0, 1, 1, 2, 2, 2] + [3] * 5 + [4] * 3
    assert to_tensors(packed, torch.device("cpu")).trained.turns_K.dtype == torch.long
