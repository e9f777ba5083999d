"""Any JSON, and well-formed JSON with any in it, for tests of what comes from machines that are not trusted."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**18), float("nan"), float("inf")])
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def altered(value: Any, odd: object, place: int) -> tuple[Any, int]:
    """Return a copy of `value` with `odd` at its n-th place, and how many places are left to go."""
    if place == 0:
        return odd, -1
    place -= 1
    if isinstance(value, dict | list):
        copied = copy.copy(value)
        for key in value if isinstance(value, dict) else range(len(value)):
            copied[key], place = altered(value[key], odd, place)
            if place < 0:
                break
        return copied, place
    return value, place
