from dataclasses import replace

import numpy as np
import pytest

from agent_rl.learner.batch import pack


def test_documents_share_bins_up_to_the_budget(make_rows):
    rows = [
        replace(row, weights_T=(np.arange(len(row.token_ids_T)) > 0).astype("f4")) for row in make_rows([7, 5, 4, 3])
    ]
    assert [batch.lengths_B.tolist() for batch in pack(rows, 8)] == [[6, 2], [4, 3]]


def test_a_row_longer_than_the_budget_gets_its_own_bin(make_rows):
    rows = make_rows([50, 6, 7])
    assert [len(batch.lengths_B) for batch in pack(rows, 20)] == [1, 2]


def test_what_follows_the_last_trained_token_is_not_forwarded(make_rows):
    [row] = make_rows([20])
    weights_T = np.zeros(20, np.float32)
    weights_T[[3, 6]] = 1
    [batch] = pack([replace(row, weights_T=weights_T)], 100)
    assert batch.token_ids_N.tolist() == row.token_ids_T[:6].tolist()
    assert batch.sources_K.tolist() == [2, 5]
    assert batch.targets_K.tolist() == row.token_ids_T[[3, 6]].tolist()


def test_rows_without_trained_tokens_vanish(make_rows):
    [row] = make_rows([20])
    assert pack([replace(row, weights_T=np.zeros(20, np.float32))], 100) == []


def test_the_first_token_cannot_be_trained(make_rows):
    [row] = make_rows([4])
    with pytest.raises(ValueError, match="first token"):
        pack([replace(row, weights_T=np.ones(4, np.float32))], 100)
