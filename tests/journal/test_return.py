"""A journal that was in memory for a while goes back into its file: once, and nobody waits for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_common import database
from opencode_journal.entries import ASK_OPENED, TURN_ENDED
from opencode_journal.errors import AnotherEpoch
from opencode_journal.journal import Journal
from opencode_journal.leader import Leader
from support.fleet.full_disk import fill
from support.fleet.lock_holder import locked

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

PATH = "journal.sqlite3"


def test_when_there_is_room_again_what_was_in_memory_is_in_the_file(
    opened: Callable[[], Journal], pages: list[int]
) -> None:
    pages[0] = 40
    journal = opened()
    before = journal.cursor()
    handle = journal.handle("s", "laptop", "ses_1")
    kept = fill(journal)
    journal.append(TURN_ENDED, "laptop", "ses_1", data={"text": "y" * 4000})
    journal.set_state("open", ["per_2"])
    in_memory, strange = journal.cursor(), journal.handle("s", "laptop", "ses_2")

    journal._opened.look()
    assert not journal.is_kept, "the disk is as full as before"
    pages[0] = 1_000_000
    assert journal._opened.look()

    assert journal.trouble == ""
    entries, _ = journal.after(before, 1000)
    assert [entry.kind for entry in entries] == [ASK_OPENED] * kept + [TURN_ENDED]
    assert opened().latest(1000) == entries
    assert opened().state("open") == ["per_2"]
    with pytest.raises(AnotherEpoch):
        journal.after(in_memory, 5)
    assert journal.of_handle(handle) == ("s", "laptop", "ses_1")
    assert journal.of_handle(strange) is None
    assert journal.handle("s", "laptop", "ses_3") == "s2", "handles are short again"
    assert journal.append(TURN_ENDED, "laptop", durable=True).seq == kept + 2


async def test_of_two_copies_that_were_in_memory_the_leader_alone_writes_what_both_remember(
    directory: Path, pages: list[int], opened: Callable[[], Journal]
) -> None:
    pages[0] = 40
    first = Leader(directory)
    async with first.standing():
        leading, other = Journal(directory, leader=first), Journal(directory, leader=Leader(directory))
        leading.set_state("open/laptop", "before")
        kept = fill(leading)
        for journal, state in ((other, "old"), (leading, "new")):
            journal.append(TURN_ENDED, "laptop", data={"text": "y" * 4000})
            journal.set_state("open/laptop", state)
            assert not journal.is_kept
        pages[0] = 1_000_000

        assert leading._opened.look()
        assert other._opened.look()

        entries = opened().latest(1000)
        assert [entry.kind for entry in entries] == [ASK_OPENED] * kept + [TURN_ENDED]
        assert [journal.state("open/laptop") for journal in (leading, other)] == ["new", "new"]
        leading.close()
        other.close()


def test_a_state_that_was_removed_in_memory_does_not_come_back_with_the_file(
    opened: Callable[[], Journal], pages: list[int]
) -> None:
    pages[0] = 40
    journal = opened()
    journal.set_state("open/laptop", ["ses_1"])
    fill(journal)
    journal.append(TURN_ENDED, "laptop", data={"text": "y" * 4000})
    journal.set_state("open/laptop", None)
    pages[0] = 1_000_000
    opened().set_state("other", 1)

    assert journal._opened.look()

    assert journal.is_kept
    assert (journal.state("open/laptop"), journal.state("other")) == (None, 1)


def test_nobody_waits_for_a_file_that_does_not_serve(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[float] = []

    def connect(path: Path | str, seconds: float) -> sqlite3.Connection:
        patience.append(seconds)
        return database.connect(path, seconds)

    with locked(directory / PATH) as holder:
        journal.append(TURN_ENDED, "a")
        monkeypatch.setattr("opencode_journal.opening.connect", connect)
        assert not journal._opened.look()
        holder.let_go()
    assert journal._opened.look()
    assert patience == [0, 0]
    # One that serves is worth to be waited for.
    assert journal._opened.rows._db.execute("PRAGMA busy_timeout").fetchone()[0] == 2_000


async def test_a_file_that_does_not_serve_for_long_is_looked_after_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    journal = Journal(tmp_path)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            tmp_path.chmod(0o700)
        if len(pauses) == 6:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await journal._watch()
    assert pauses == [2, 4, 8, 15, 15, 1]
    journal.close()
