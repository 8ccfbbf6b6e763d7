"""Every bit comes back: special values, nothing changed, all changed, and what is not worth packing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent_rl.engine.delta.coding import apply, encode
from agent_rl.engine.delta.packing import pack, unpack

DTYPES = [np.uint8, np.uint16, np.uint32, np.uint64]


def round_trip(old, new):
    code = encode(old, new)
    restored = old.copy()
    if code is not None:
        apply(code, restored)
    return code, restored


@given(st.lists(st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1)), max_size=400))
def test_packed_integers_come_back(values):
    array = np.array(values, np.uint64)
    unpacked, rest = unpack(memoryview(pack(array) + b"rest"), len(array))
    assert unpacked.tolist() == values
    assert bytes(rest) == b"rest"


def test_packing_takes_the_bits_that_are_needed():
    assert len(pack(np.full(1280, 5, np.uint64))) == 10 * (1 + 3 * 16)
    assert len(pack(np.zeros(1280, np.uint64))) == 10


@given(st.data(), st.sampled_from(DTYPES), st.integers(0, 600))
def test_any_change_comes_back_bit_for_bit(data, dtype, size):
    old = data.draw(arrays(dtype, size))
    new = old.copy()
    if size:
        changes = data.draw(st.dictionaries(st.integers(0, size - 1), st.integers(0, np.iinfo(dtype).max)))
        new[list(changes)] = list(changes.values())
    code, restored = round_trip(old, new)
    assert np.array_equal(restored, new)
    assert (code is None) == np.array_equal(old, new)
    assert code is None or len(code) <= 8 + new.nbytes


SPECIAL = {
    "-0.0 for 0.0": (0x0000, 0x8000),
    "another NaN": (0x7FC0, 0x7FC1),
    "-infinity for infinity": (0x7F80, 0xFF80),
    "a subnormal": (0x0000, 0x0001),
}


@pytest.mark.parametrize(("before", "after"), SPECIAL.values(), ids=SPECIAL)
def test_values_that_floats_do_not_tell_apart_are_changes(before, after):
    old = np.full(3, before, np.uint16)
    new = np.array([before, after, before], np.uint16)
    assert np.array_equal(round_trip(old, new)[1], new)


def test_neighbours_in_few_places_take_few_bits():
    """1 % of the weights move by one unit in the last place: the entropy of where and how is about 9.1 bits each."""
    rng = np.random.default_rng(0)
    old = rng.integers(0x3C00, 0x3F00, 1_000_000).astype(np.uint16)
    new = old + np.where(rng.random(len(old)) < 0.01, rng.choice([-1, 1], len(old)), 0).astype(np.uint16)
    code, restored = round_trip(old, new)
    assert np.array_equal(restored, new)
    assert len(code) * 8 < 12.5 * 0.01 * len(old)


def test_random_weights_are_sent_whole():
    old, new = np.random.default_rng(0).integers(0, 2**16, (2, 5000)).astype(np.uint16)
    code, restored = round_trip(old, new)
    assert np.array_equal(restored, new)
    assert len(code) == 8 + new.nbytes


def test_a_code_for_another_tensor_is_refused():
    old = np.zeros(1000, np.uint16)
    new = old.copy()
    new[[3, 999]] = 1
    code = encode(old, new)
    with pytest.raises(ValueError, match="another size"):
        apply(code, old[:999])
    whole = encode(old, np.random.default_rng(0).integers(0, 2**16, 1000).astype(np.uint16))
    with pytest.raises(ValueError, match="broadcast"):
        apply(whole, old[:999])
