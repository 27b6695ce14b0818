"""A few values by key, against a plain list of the keys in the order of their use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atmc_search.search.recent import Recent


@given(st.lists(st.tuples(st.sampled_from("rw"), st.integers(0, 6))), st.integers(1, 4))
def test_the_least_recently_used_gives_way(uses: list[tuple[str, int]], most: int) -> None:
    values: Recent[int, int] = Recent(most)
    order: list[int] = []
    for time, (use, key) in enumerate(uses):
        if use == "r":
            assert (key in values) == (key in order)  # to ask is no use
            if key not in order:
                continue
            assert isinstance(values[key], int)
        else:
            values[key] = time
        order = [*(other for other in order if other != key), key][-most:]
        assert [key for key, _ in values.items()] == order
        assert len(values) == len(order)
        assert use == "r" or values[key] == time
