"""Rows that begin alike, packed: against definitions that look at one token at a time."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rl.learner import flex_attention
from agent_rl.learner.batch import PackedBatch, pack
from agent_rl.learner.forest import branch_starts, rectangles, subtree_ends
from agent_rl.types import TrainingRow

MIN_SHARED = st.sampled_from([1, 1, 3])
BUDGETS = st.sampled_from([1, 8, 20, 10_000])


@st.composite
def forests(draw):
    """Rows over two token ids that repeat, extend or leave earlier ones; what they train on tells them apart."""
    rows: list[TrainingRow] = []
    for number in range(draw(st.integers(0, 8))):
        begin: list[int] = []
        if rows and draw(st.booleans()):
            earlier = rows[draw(st.integers(0, len(rows) - 1))].token_ids_T.tolist()
            begin = earlier[: draw(st.integers(0, len(earlier)))]
        # Bytes are drawn at once, lists item by item.
        ids_T = np.array([*begin, *(byte % 2 for byte in draw(st.binary(min_size=1, max_size=10)))], np.int32)
        choices = draw(st.binary(min_size=len(ids_T) - 1, max_size=len(ids_T) - 1))
        weights_T = np.array([0, *((0, 0, 1, 2)[byte % 4] for byte in choices)], np.float32)
        marks_T = (100 * number + np.arange(len(ids_T))).astype(np.float32)
        versions_T = np.zeros(len(ids_T), np.int32)
        rows.append(TrainingRow(ids_T, weights_T > 0, -marks_T, marks_T, weights_T, versions_T))
    return rows


def input_ids(row: TrainingRow) -> tuple[int, ...]:
    return tuple(row.token_ids_T[: np.flatnonzero(row.weights_T).max(initial=0)].tolist())


def parents(batch: PackedBatch) -> list[int]:
    """The token before each token of a batch, -1 for the first of a tree."""
    found = list(range(-1, len(batch.token_ids_N) - 1))
    for start, stem in zip(branch_starts(batch.lengths_B), batch.stems_B, strict=True):
        found[start] = int(stem)
    return found


def path_to(batch: PackedBatch, token: int) -> list[int]:
    before, path = parents(batch), []
    while token >= 0:
        path.append(token)
        token = before[token]
    return path[::-1]


def trie_size(sequences) -> int:
    return len({ids[:length] for ids in sequences for length in range(1, len(ids) + 1)})


def batches_of(rows, budget, min_shared, **options):
    return pack(rows, budget, min_shared=min_shared, **options)


@given(forests(), BUDGETS, MIN_SHARED)
def test_every_trained_token_is_predicted_after_its_own_row(rows, budget, min_shared):
    entries = []
    for batch in batches_of(rows, budget, min_shared):
        assert (np.diff(batch.documents_K) >= 0).all()
        for k, source in enumerate(batch.sources_K):
            row = rows[batch.rows_D[batch.documents_K[k]]]
            path = path_to(batch, int(source))
            assert batch.token_ids_N[path].tolist() == row.token_ids_T[: len(path)].tolist()
            assert batch.position_ids_N[path].tolist() == list(range(len(path)))
            assert batch.targets_K[k] == row.token_ids_T[len(path)]
            entries.append((float(batch.advantages_K[k]), float(batch.weights_K[k])))
            assert batch.rollout_logprobs_K[k] == -batch.advantages_K[k] == row.rollout_logprobs_T[len(path)]
    expected = [(float(a), float(w)) for row in rows for a, w in zip(row.advantages_T, row.weights_T, strict=True) if w]
    assert sorted(entries) == sorted(expected)


@given(forests(), BUDGETS)
def test_a_batch_forwards_each_distinct_beginning_once(rows, budget):
    batches = batches_of(rows, budget, 1)
    for batch in batches:
        assert len(batch.token_ids_N) == trie_size([input_ids(rows[r]) for r in batch.rows_D])
        assert batch.lengths_B.sum() == len(batch.token_ids_N)
        assert batch.lengths_B.min() > 0
    assert sorted(r for batch in batches for r in batch.rows_D) == [i for i, row in enumerate(rows) if input_ids(row)]


@given(forests())
def test_one_budget_that_holds_all_makes_one_batch(rows):
    batches = batches_of(rows, 10_000, 1)
    assert sum(len(batch.token_ids_N) for batch in batches) == trie_size(list(map(input_ids, rows)))
    assert len(batches) <= 1


@given(forests(), BUDGETS, MIN_SHARED)
def test_budgets_hold_for_all_but_single_rows(rows, budget, min_shared):
    for batch in batches_of(rows, budget, min_shared):
        lengths = [len(input_ids(rows[r])) for r in batch.rows_D]
        assert len(batch.token_ids_N) <= budget or len(batch.token_ids_N) == max(lengths)
        assert len(batch.targets_K) <= budget or len(lengths) == 1
    for batch in batches_of(rows, budget, min_shared, bound_trained=False):
        lengths = [len(input_ids(rows[r])) for r in batch.rows_D]
        assert len(batch.token_ids_N) <= budget or len(batch.token_ids_N) == max(lengths)


@given(forests(), BUDGETS, MIN_SHARED, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, budget, min_shared, random):
    def content(batch):
        whole = tuple(
            array.tobytes() for array in (batch.token_ids_N, batch.position_ids_N, batch.lengths_B, batch.stems_B)
        )
        per_token = zip(batch.sources_K, batch.targets_K, batch.advantages_K, batch.weights_K, strict=True)
        return whole, frozenset(tuple(map(float, entry)) for entry in per_token)

    # Identical rows may change places, with what they train on.
    rows = list({(input_ids(row)): row for row in rows}.values())
    shuffled = random.sample(rows, len(rows))
    before, after = ([content(b) for b in batches_of(some, budget, min_shared)] for some in (rows, shuffled))
    assert before == after


@given(forests(), MIN_SHARED)
def test_a_run_is_shared_only_if_it_is_long_enough(rows, min_shared):
    for batch in batches_of(rows, 10_000, min_shared):
        before = parents(batch)
        children = Counter(before)
        for token, count in children.items():
            if token < 0 or count < 2:
                continue
            path = path_to(batch, token)[:-1]
            run = 1
            while path and children[path.pop()] == 1:
                run += 1
            assert run >= min_shared


def dense_visibility(batch: PackedBatch) -> np.ndarray:
    length = len(batch.token_ids_N)
    visible_NN = np.zeros((length, length), np.bool_)
    for token in range(length):
        visible_NN[token, path_to(batch, token)] = True
    return visible_NN


@given(forests(), MIN_SHARED)
def test_one_number_per_token_says_who_sees_it(rows, min_shared):
    for batch in batches_of(rows, 10_000, min_shared):
        ends_N = subtree_ends(batch.lengths_B, batch.stems_B)
        tokens = np.arange(len(ends_N))
        by_ends_NN = (tokens <= tokens[:, None]) & (tokens[:, None] < ends_N)
        np.testing.assert_array_equal(by_ends_NN, dense_visibility(batch))


@given(forests(), MIN_SHARED)
def test_branches_and_rectangles_hold_every_visible_pair_once(rows, min_shared):
    for batch in batches_of(rows, 10_000, min_shared):
        pairs_NN = np.zeros((len(batch.token_ids_N),) * 2, int)
        for start, length in zip(branch_starts(batch.lengths_B), batch.lengths_B, strict=True):
            pairs_NN[start : start + length, start : start + length] += np.tri(length, dtype=int)
        for own in rectangles(batch.lengths_B, batch.stems_B):
            pairs_NN[own.query_start : own.query_stop, own.key_start : own.key_stop] += 1
        np.testing.assert_array_equal(pairs_NN, dense_visibility(batch))


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Blocks of which a small batch has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex_attention, "BLOCK", 4)
        yield


@given(forests())
def test_blocks_of_the_mask_are_what_their_pairs_say(rows):
    for batch in batches_of(rows, 10_000, 1):
        ends_N = subtree_ends(batch.lengths_B, batch.stems_B)
        length, size = len(ends_N), 4
        mixed_MM, full_MM = flex_attention.visible_blocks(ends_N)
        blocks = -(-length // size)
        padded = np.zeros((blocks * size,) * 2, np.bool_)
        padded[:length, :length] = dense_visibility(batch)
        tiles = padded.reshape(blocks, size, blocks, size)
        np.testing.assert_array_equal(mixed_MM | full_MM, tiles.any((1, 3)))
        np.testing.assert_array_equal(full_MM, tiles.all((1, 3)))
