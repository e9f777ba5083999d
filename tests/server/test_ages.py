"""Lengths of time as a person says them."""

from __future__ import annotations

import pytest

from opencode_mcp.views.ages import ago, lasted


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7_199, "1 h"), (86_400, "1 day"), (200_000, "2 days")],
)
def test_a_length_of_time_is_told_in_its_largest_unit(seconds: float, said: str) -> None:
    assert lasted(seconds) == said


def test_what_was_within_a_minute_was_just_now_also_by_a_clock_that_was_set_back() -> None:
    assert [ago(1_000, now) for now in (900, 1_059, 1_060)] == ["just now", "just now", "1 min ago"]
