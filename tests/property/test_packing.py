from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent_rl.learner.batch import pack
from agent_rl.types import TrainingRow

BUDGET = 32


@st.composite
def batches(draw):
    """Rows whose token ids are unique across the batch, with any tokens but the first trained."""
    lengths = draw(st.lists(st.integers(1, BUDGET + 8), max_size=24))
    rows, first = [], 0
    for length in lengths:
        weights = np.array([0, *draw(st.lists(st.sampled_from([0, 0.5, 1]), min_size=length, max_size=length))])
        ids_T = np.arange(first, first + length + 1, dtype=np.int32)
        first += length + 1
        rows.append(
            TrainingRow(
                token_ids_T=ids_T,
                response_mask_T=weights > 0,
                rollout_logprobs_T=-ids_T.astype(np.float32),
                advantages_T=2 * ids_T.astype(np.float32),
                weights_T=weights.astype(np.float32),
                weight_versions_T=np.zeros(length + 1, np.int32),
            )
        )
    return rows


def needed_length(row):
    """Tokens that some trained token depends on."""
    return int(np.flatnonzero(row.weights_T).max(initial=0))


@given(batches())
def test_every_needed_token_is_packed_exactly_once(rows):
    packed = Counter(int(token) for batch in pack(rows, BUDGET) for token in batch.token_ids_N)
    assert packed == Counter(int(token) for row in rows for token in row.token_ids_T[: needed_length(row)])


@given(batches())
def test_every_trained_token_is_predicted_once_from_its_predecessor(rows):
    trained = []
    for batch in pack(rows, BUDGET):
        # Ids are consecutive inside a row: the source of a target is the id before it, in the same document.
        np.testing.assert_array_equal(batch.token_ids_N[batch.sources_K], batch.targets_K - 1)
        np.testing.assert_array_equal(batch.advantages_K, 2.0 * batch.targets_K)
        np.testing.assert_array_equal(batch.rollout_logprobs_K, -1.0 * batch.targets_K)
        trained += zip(batch.targets_K.tolist(), batch.weights_K.tolist(), strict=True)
    expected = [
        (int(token), float(weight))
        for row in rows
        for token, weight in zip(row.token_ids_T, row.weights_T, strict=True)
        if weight
    ]
    assert sorted(trained) == sorted(expected)


@given(batches())
def test_documents_are_whole_and_positions_restart(rows):
    lengths = {int(row.token_ids_T[0]): needed_length(row) for row in rows}
    for batch in pack(rows, BUDGET):
        assert batch.lengths_B.sum() == len(batch.token_ids_N) == len(batch.position_ids_N)
        assert list(batch.lengths_B) == sorted(batch.lengths_B, reverse=True)
        starts = np.cumsum(batch.lengths_B) - batch.lengths_B
        for start, length in zip(starts, batch.lengths_B, strict=True):
            document = batch.token_ids_N[start : start + length]
            assert lengths[int(document[0])] == length
            np.testing.assert_array_equal(batch.position_ids_N[start : start + length], np.arange(length))


@given(batches())
def test_no_bin_is_over_budget_and_few_bins_are_used(rows):
    packed = pack(rows, BUDGET)
    for batch in packed:
        assert len(batch.token_ids_N) <= BUDGET or len(batch.lengths_B) == 1
    lengths = [length for length in map(needed_length, rows) if length]
    fitting = [length for length in lengths if length <= BUDGET]
    lower_bound = max(-(-sum(fitting) // BUDGET), sum(2 * length > BUDGET for length in fitting))
    # Any-fit decreasing against this bound: 7/4 (each bin but the last is over half full, pairs over two thirds).
    assert len(packed) <= 1.75 * lower_bound + 1 + len(lengths) - len(fitting)
