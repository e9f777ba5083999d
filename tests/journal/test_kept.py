"""States that must be kept: on the disk or not at all, never in memory, and until they are removed."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from opencode_journal.errors import NotKept
from opencode_journal.opening import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_journal.journal import Journal

KEY = "kept/message/1"


def test_one_is_set_durably_or_not_at_all(journal: Journal) -> None:
    with pytest.raises(ValueError, match="within a durable transaction"):
        journal.set_state(KEY, "text")
    with pytest.raises(ValueError, match="within a durable transaction"):
        journal.together(lambda: journal.set_state(KEY, "text"))
    journal.together(lambda: journal.set_state(KEY, "text"), durable=True)
    assert journal.state(KEY) == "text"


def test_one_stays_however_old_it_is_until_it_is_removed(journal: Journal) -> None:
    journal.set_state("other", 1)
    journal.together(lambda: journal.set_state(KEY, "text"), durable=True)
    journal.prune(time.time() + 1_000 * 86_400)
    assert (journal.state("other"), journal.state(KEY)) == (None, "text")
    journal.together(lambda: journal.set_state(KEY, None), durable=True)
    assert journal.state(KEY) is None


def test_none_is_in_memory_and_what_another_copy_removed_does_not_come_back(
    opened: Callable[[], Journal],
) -> None:
    ours, other = opened(), opened()
    for key in (KEY, "kept/message/2"):
        ours.together(partial(ours.set_state, key, "text"), durable=True)
    ours._opened.fall_back(OSError(5, "it broke", FILE_NAME))
    assert not ours.is_kept
    assert ours.state(KEY) is None
    with pytest.raises(NotKept):
        ours.together(lambda: ours.set_state(KEY, "another"), durable=True)
    other.together(lambda: other.set_state(KEY, None), durable=True)
    assert ours._opened.look()
    assert ours.is_kept
    assert (ours.state(KEY), ours.state("kept/message/2")) == (None, "text")


def test_an_instance_is_known_by_its_handles_or_entries_under_its_whole_name(journal: Journal) -> None:
    journal.handle("s", "laptop", "ses_1")
    journal.append("turn-ended", "desktop")
    assert [journal.knows(name) for name in ("laptop", "desktop", "lap", "server")] == [True, True, False, False]


def test_messages_have_handles_like_all_else(journal: Journal) -> None:
    handle = journal.together(lambda: journal.handle("m", "laptop", "msg_1"), durable=True)
    assert handle.startswith("m")
    assert journal.of_handle(handle.upper()) == ("m", "laptop", "msg_1")
    assert journal.of_handle(f"s{handle[1:]}") is None
