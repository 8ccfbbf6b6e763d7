import numpy as np
import pytest

from agent_rl.tokens import TokenBuffer
from agent_rl.types import FinishReason, Generation


def generation(ids, version=3) -> Generation:
    ids = np.array(ids, np.int32)
    return Generation(ids, -ids.astype(np.float32), np.full(len(ids), version, np.int32), FinishReason.STOP)


def test_response_is_the_only_masked_part():
    buffer = TokenBuffer([1, 2, 3])
    span = buffer.append_response(generation([7, 8]))
    buffer.append_context([4])
    segment = buffer.segment()
    assert span == (3, 5)
    assert len(buffer) == 6
    assert segment.token_ids_T.tolist() == [1, 2, 3, 7, 8, 4]
    assert segment.response_mask_T.tolist() == [False, False, False, True, True, False]
    assert segment.rollout_logprobs_T.tolist() == [0, 0, 0, -7, -8, 0]
    assert segment.weight_versions_T.tolist() == [-1, -1, -1, 3, 3, -1]


def test_dtypes_are_those_of_segments():
    segment = TokenBuffer([1]).segment()
    assert segment.token_ids_T.dtype == np.int32
    assert segment.response_mask_T.dtype == np.bool_
    assert segment.rollout_logprobs_T.dtype == np.float32
    assert segment.weight_versions_T.dtype == np.int32


def test_views_are_read_only_and_keep_their_content():
    buffer = TokenBuffer([1, 2])
    view = buffer.ids_T
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 9
    buffer.append_context(range(1000))
    assert view.tolist() == [1, 2]
    assert np.shares_memory(buffer.ids_T, buffer.ids_T)


def test_segments_are_read_only_copies():
    buffer = TokenBuffer([1, 2])
    segment = buffer.segment()
    assert not np.shares_memory(segment.token_ids_T, buffer.ids_T)
    with pytest.raises(ValueError, match="read-only"):
        segment.response_mask_T[0] = True


def test_an_empty_response_has_an_empty_span():
    buffer = TokenBuffer([1, 2])
    assert buffer.append_response(generation([])) == (2, 2)
    assert len(buffer) == 2


def test_misaligned_generation_is_refused_and_changes_nothing():
    buffer = TokenBuffer([1])
    broken = Generation(np.array([1, 2], np.int32), np.zeros(1, np.float32), np.zeros(2, np.int32), FinishReason.STOP)
    with pytest.raises(ValueError, match="one log-prob"):
        buffer.append_response(broken)
    assert len(buffer) == 1


def test_growth_is_amortised():
    buffer = TokenBuffer()
    storages = set()
    for token in range(20_000):
        buffer.append_context([token])
        storages.add(buffer.ids_T.__array_interface__["data"][0])
    assert len(storages) <= 10  # one move per doubling from 64
    assert buffer.ids_T.tolist() == list(range(20_000))
    assert (buffer.segment().weight_versions_T == -1).all()
