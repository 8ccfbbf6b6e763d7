"""A family of seeds is the seeds themselves."""

from hypothesis import given
from hypothesis import strategies as st

from agent_rl.seeding import SeedFamily, derive_seed

parts = st.integers() | st.text()


@given(st.lists(parts, min_size=1), parts)
def test_a_family_gives_the_same_seeds(key, last):
    assert SeedFamily(*key)(last) == derive_seed(*key, last)
