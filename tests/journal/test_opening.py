"""A journal whose file does not serve: it goes on in memory, says why, and comes back."""

from __future__ import annotations

import os
import re
import sqlite3
from typing import TYPE_CHECKING

import pytest

from opencode_journal.cursor import Cursor
from opencode_journal.entries import ASK_OPENED, TURN_ENDED
from opencode_journal.errors import AnotherEpoch, NotKept
from opencode_journal.journal import Journal
from support.fleet.full_disk import fill

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATH = "journal.sqlite3"


def make_newer(path: Path) -> None:
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 1000")
    later.close()


def works(journal: Journal) -> bool:
    """Whether all that is not durable can be done."""
    entry = journal.append(TURN_ENDED, "a")
    journal.set_state("key", 1)
    handle = journal.handle("s", "a", "ses_1")
    return (
        journal.latest(1) == [entry]
        and journal.state("key") == 1
        and journal.of_handle(handle) == ("s", "a", "ses_1")
    )


def test_without_a_directory_it_works_and_keeps_nothing() -> None:
    journal = Journal(None)

    assert works(journal)
    assert not journal.is_kept
    assert journal.trouble.endswith("there is no directory for it; set RELAY_STATE_DIR")
    with pytest.raises(NotKept, match=r"this cannot be kept, so it was not done: .+ set RELAY_STATE_DIR"):
        journal.append(TURN_ENDED, "a", durable=True)
    assert len(journal.latest(5)) == 1
    journal.close()


def below_a_file(directory: Path) -> None:
    directory.write_text("")


def open_to_others(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)


def of_a_newer_version(directory: Path) -> None:
    Journal(directory).close()
    make_newer(directory / PATH)


def damaged(directory: Path) -> None:
    Journal(directory).close()
    (directory / PATH).write_bytes(b"no database" * 1000)


def linked_elsewhere(directory: Path) -> None:
    directory.mkdir(0o700)
    elsewhere = directory.parent / "elsewhere"
    elsewhere.touch(0o600)
    (directory / PATH).symlink_to(elsewhere)


def readable_by_others(directory: Path) -> None:
    Journal(directory).close()
    (directory / PATH).chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (below_a_file, "state cannot be used: File exists; set RELAY_STATE_DIR to a directory of your own"),
        (open_to_others, "state cannot be used: others may write into it: `chmod go-w "),
        (of_a_newer_version, r"journal\.sqlite3 does not serve: it has version 1000, .+; run that version here, too"),
        (damaged, r"journal\.sqlite3 does not serve: file is not a database; remove it; what it knew is lost"),
        (linked_elsewhere, r"journal\.sqlite3 cannot be used: it is no regular file"),
        (readable_by_others, r"journal\.sqlite3 cannot be used: it is open to others: `chmod 600 "),
    ],
)
def test_a_file_that_cannot_serve_is_left_alone_and_it_is_said_why(
    directory: Path, spoil: Callable[[Path], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(directory)
    content = (directory / PATH).read_bytes() if directory.is_dir() and (directory / PATH).exists() else None

    journal = Journal(directory)

    assert works(journal)
    (line,) = [record.message for record in caplog.records]
    assert line == journal.trouble
    assert re.search(why, line)
    if content is not None:
        assert (directory / PATH).read_bytes() == content
    journal.close()


def test_a_directory_of_somebody_else_is_not_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.mkdir(0o700)
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)

    journal = Journal(directory)

    assert f"it belongs to uid {stranger - 1}, and this is uid {stranger}" in journal.trouble
    assert works(journal)
    assert list(directory.iterdir()) == []
    journal.close()


def test_nobody_takes_memory_for_the_file_or_for_another_s_memory(journal: Journal) -> None:
    kept = journal.append(TURN_ENDED, "a")
    one, other = Journal(None), Journal(None)

    with pytest.raises(AnotherEpoch):
        one.after(Cursor(journal.epoch, kept.seq), 5)
    one.append(TURN_ENDED, "a")
    with pytest.raises(AnotherEpoch):
        other.after(one.cursor(), 5)
    handles = {each.handle("a", "laptop", f"per_{number}") for number, each in enumerate((journal, one, other))}
    assert len(handles) == 3
    one.close()
    other.close()


def test_on_a_full_disk_what_must_be_kept_is_refused_and_the_rest_goes_on(
    opened: Callable[[], Journal], pages: list[int]
) -> None:
    pages[0] = 40
    journal = opened()
    handle = journal.handle("s", "laptop", "ses_1")
    journal.set_state("open", ["per_1"])
    epoch, kept = journal.epoch, fill(journal)
    assert kept > 3
    assert journal.cursor().seq == kept, "nothing of what was refused"
    assert journal.is_kept, "what is there can still be read"

    told = journal.append(TURN_ENDED, "laptop", data={"text": "y" * 4000})

    assert "disk is full; make room on its disk" in journal.trouble
    assert journal.latest(5) == [told]
    assert journal.epoch != epoch
    assert journal.of_handle(handle) == ("s", "laptop", "ses_1")
    assert journal.state("open") == ["per_1"]
    with pytest.raises(NotKept, match="make room on its disk"):
        journal.append(ASK_OPENED, "laptop", durable=True)


def test_a_file_that_was_removed_to_make_room_gives_no_handle_out_again(
    opened: Callable[[], Journal], pages: list[int], directory: Path
) -> None:
    pages[0] = 40
    journal = opened()
    known = journal.handle("s", "laptop", "ses_1")
    forgotten = journal.handle("s", "laptop", "ses_2")
    journal._opened.rows._db.execute("DELETE FROM handles WHERE id = 'ses_2'")
    fill(journal)
    journal.append(TURN_ENDED, "laptop", data={"text": "y" * 4000})
    for file in directory.iterdir():
        file.unlink()

    assert journal._opened.look()

    assert journal.of_handle(known) == ("s", "laptop", "ses_1")
    assert journal.handle("s", "laptop", "ses_3") not in {known, forgotten}


def test_what_fails_in_the_middle_is_done_whole_in_memory(opened: Callable[[], Journal], pages: list[int]) -> None:
    pages[0] = 40
    journal = opened()
    fill(journal)

    def both() -> None:
        journal.set_state("small", 1)
        journal.append(TURN_ENDED, "laptop", data={"text": "y" * 4000})

    journal.together(both)

    assert [entry.kind for entry in journal.latest(5)] == [TURN_ENDED]
    assert journal.state("small") == 1
    assert opened().state("small") is None


def test_in_memory_there_is_an_end_to_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencode_journal.journal.MAX_BYTES_IN_MEMORY", 100_000)
    journal = Journal(None)
    entries = [journal.append(TURN_ENDED, str(number), data={"text": "x" * 4000}) for number in range(50)]

    while journal.prune(0):
        pass

    assert journal.latest(100) == entries[-24:]
    journal.close()


def test_a_file_that_was_removed_is_made_anew_and_no_handle_comes_back(
    journal: Journal, directory: Path, opened: Callable[[], Journal]
) -> None:
    handle = journal.handle("s", "laptop", "ses_1")
    old = journal.append(TURN_ENDED, "a")
    epoch = journal.epoch
    journal._opened.look()
    (directory / PATH).unlink()

    entry = journal.append(TURN_ENDED, "b", durable=True)

    assert journal.is_kept
    assert journal.epoch != epoch
    assert opened().latest(5) == [entry] != [old]
    assert journal.of_handle(handle) is None
    assert journal.handle("s", "laptop", "ses_2") != handle


def test_what_was_in_a_file_that_was_removed_is_not_read(journal: Journal, directory: Path) -> None:
    journal.append(TURN_ENDED, "a")
    (directory / PATH).unlink()

    assert journal.latest(5) == []
    assert journal.is_kept


def test_a_file_that_a_newer_version_changes_meanwhile_is_left_to_it(journal: Journal, directory: Path) -> None:
    journal.append(TURN_ENDED, "a")
    make_newer(directory / PATH)

    assert journal._opened.look()

    assert journal.trouble.endswith(
        "a later version of the program has changed it meanwhile; run that version here, too"
    )
    assert works(journal)
    assert not journal._opened.look()
