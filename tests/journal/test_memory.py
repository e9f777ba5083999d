"""What is remembered beside entries: handles and states."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from opencode_journal.entries import MAX_NAME_CHARACTERS
from opencode_journal.journal import MAX_STATE_BYTES, Journal

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400


def test_a_thing_keeps_its_handle_and_a_handle_its_thing(opened: Callable[[], Journal]) -> None:
    journal = opened()
    ask, session = journal.handle("a", "laptop", "per_1"), journal.handle("s", "laptop", "ses_1")

    other = opened()
    assert other.handle("a", "laptop", "per_1") == ask
    assert other.of_handle(ask) == ("a", "laptop", "per_1")
    assert other.of_handle(session) == ("s", "laptop", "ses_1")
    assert other.handle("a", "desktop", "per_1") not in {ask, session}


def test_handles_are_short_and_may_be_said_as_a_phone_writes_them(journal: Journal) -> None:
    assert journal.handles("s", [("laptop", f"ses_{number}") for number in range(3)]) == ["s1", "s2", "s3"]
    assert journal.of_handle(" S2 ") == ("s", "laptop", "ses_1")


@pytest.mark.parametrize("text", ["", "a", "a0", "a01", "a2", "s1x", "x1", "a-1", "a" + "9" * 30, "a\u0661"])
def test_what_is_nobody_s_handle_is_none(journal: Journal, text: str) -> None:
    assert journal.handle("s", "laptop", "ses_1") == "s1"
    assert journal.of_handle(text) is None
    assert journal.of_handle("a1") is None, "a session is no ask"


def test_a_handle_that_is_named_is_used(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    handle = journal.handle("s", "laptop", "ses_1")
    monkeypatch.setattr(time, "time", lambda: now + 13 * DAY)
    assert journal.of_handle(handle) is not None

    journal.prune(now + 15 * DAY)

    assert journal.of_handle(handle) == ("s", "laptop", "ses_1")


def test_a_handle_is_never_given_to_something_else(
    opened: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened()
    now = time.time()
    used = journal.handle("a", "laptop", "per_used")
    forgotten = journal.handle("a", "laptop", "per_forgotten")
    monkeypatch.setattr(time, "time", lambda: now + 13 * DAY)
    assert journal.handle("a", "laptop", "per_used") == used

    journal.prune(now + 15 * DAY)

    assert journal.of_handle(used) == ("a", "laptop", "per_used")
    assert journal.of_handle(forgotten) is None
    later = [journal.handle("a", "laptop", f"per_{number}") for number in range(3)]
    later.append(opened().handle("a", "laptop", "per_forgotten"))
    assert len({used, forgotten, *later}) == 6


def test_a_state_is_the_last_that_was_set(opened: Callable[[], Journal]) -> None:
    journal = opened()
    journal.set_state("laptop/open", {"per_1": ["ses_1", 1.5, None]})
    assert opened().state("laptop/open") == {"per_1": ["ses_1", 1.5, None]}

    journal.set_state("laptop/open", [])
    assert journal.state("laptop/open") == []
    journal.set_state("laptop/open", None)
    assert journal.state("laptop/open") is None


def test_a_state_that_nobody_sets_goes_with_the_entries_of_its_time(journal: Journal) -> None:
    journal.set_state("laptop/open", 1)

    journal.prune(time.time() + 13 * DAY)
    assert journal.state("laptop/open") == 1
    journal.prune(time.time() + 15 * DAY)
    assert journal.state("laptop/open") is None


def test_what_is_beyond_its_bounds_is_not_remembered(journal: Journal) -> None:
    with pytest.raises(ValueError, match="JSON of more than"):
        journal.set_state("key", "x" * MAX_STATE_BYTES)
    with pytest.raises(ValueError, match="has more than"):
        journal.set_state("x" * (MAX_NAME_CHARACTERS + 1), 1)
    with pytest.raises(ValueError, match="has more than"):
        journal.handle("a", "laptop", "x" * (MAX_NAME_CHARACTERS + 1))


def test_states_are_found_by_what_their_keys_begin_with(opened: Callable[[], Journal]) -> None:
    journal = opened()
    for key in ("open", "open/", "open/a", "open/\U0010ffff", "open0", "opem/z", "OPEN/a"):
        journal.set_state(key, [key])

    expected = {key: [key] for key in ("open/", "open/a", "open/\U0010ffff")}
    assert opened().states("open/") == expected
    assert sorted(opened().state_keys("open/")) == sorted(expected)


def test_the_bound_of_a_state_is_in_bytes_of_what_is_stored(journal: Journal) -> None:
    journal.set_state("key", "\U0001f600" * (MAX_STATE_BYTES // 4 - 1))
    with pytest.raises(ValueError, match="JSON of more than"):
        journal.set_state("key", "\U0001f600" * (MAX_STATE_BYTES // 4))
    journal.set_state("key", "half \ud83d")
    assert journal.state("key") == "half \ud83d"
