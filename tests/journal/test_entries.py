"""Entries and cursors: what happened comes back in order, and what cannot be known is said."""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING

import pytest

from opencode_common import database
from opencode_journal.cursor import Cursor
from opencode_journal.entries import (
    ASK_OPENED,
    INSTANCE_LOST,
    MAX_DATA_BYTES,
    MAX_NAME_CHARACTERS,
    TURN_ENDED,
    TURN_STARTED,
)
from opencode_journal.errors import AnotherEpoch, NotACursor, TooOld
from opencode_journal.rows import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_journal.journal import Journal

DAY = 86_400


def test_entries_come_back_as_they_were_written_and_in_order(journal: Journal) -> None:
    before = time.time()
    first = journal.append(ASK_OPENED, "laptop/web", "ses_1", "per_1", {"title": "Päivää \ud800", "files": [1, None]})
    second = journal.append(INSTANCE_LOST, "laptop/web")

    assert journal.latest(10) == [first, second]
    assert first.data == {"title": "Päivää \ud800", "files": [1, None]}
    assert before <= first.at <= time.time()
    assert (second.session, second.ask, second.data) == ("", "", {})
    assert journal.cursor().seq == second.seq > first.seq


def test_after_gives_the_oldest_of_a_kind_and_latest_the_newest(journal: Journal) -> None:
    entries = [journal.append((TURN_STARTED, TURN_ENDED)[number % 2], str(number)) for number in range(6)]
    start = Cursor(journal.epoch, entries[0].seq)

    assert journal.after(start, 2)[0] == entries[1:3]
    assert journal.after(start, 2, {TURN_STARTED})[0] == [entries[2], entries[4]]
    assert journal.latest(2, [TURN_STARTED]) == [entries[2], entries[4]]
    assert journal.latest(9) == entries
    assert journal.latest(9, []) == []


def test_pages_by_cursor_leave_nothing_out_and_repeat_nothing(journal: Journal) -> None:
    entries = [journal.append(TURN_ENDED, str(number)) for number in range(5)]
    cursor, seen = Cursor(journal.epoch, 0), []
    for _ in range(4):
        page, cursor = journal.after(cursor, 2)
        seen += page

    assert seen == entries
    assert cursor == journal.cursor()


def test_a_cursor_passes_what_was_not_asked_for(journal: Journal) -> None:
    journal.append(TURN_ENDED, "a")
    start = journal.cursor()
    journal.append(TURN_STARTED, "a")

    assert journal.after(start, 5, {TURN_ENDED}) == ([], journal.cursor())


def test_a_cursor_survives_its_text(journal: Journal) -> None:
    journal.append(TURN_ENDED, "a")
    text = str(journal.cursor())

    assert len(text) < 12
    assert Cursor.parse(text) == journal.cursor()


@pytest.mark.parametrize("text", ["", "12", "abcdef", "abcdef.", "abcdef.-1", "abcdef.01", "ABCDEF.1", "abcdef.1\n"])
def test_what_is_no_cursor_is_said(text: str) -> None:
    with pytest.raises(NotACursor, match="this is no cursor: give one as it was returned"):
        Cursor.parse(text)


def test_a_cursor_of_another_journal_or_of_the_future_is_said(journal: Journal) -> None:
    with pytest.raises(AnotherEpoch, match="begin anew without it"):
        journal.after(Cursor("zzzzzz", 0), 5)
    with pytest.raises(AnotherEpoch):
        journal.after(Cursor(journal.epoch, 1), 5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "turn-ende"},
        {"instance": "x" * (MAX_NAME_CHARACTERS + 1)},
        {"ask": "x" * (MAX_NAME_CHARACTERS + 1)},
        {"data": {"text": "x" * MAX_DATA_BYTES}},
        {"data": {"cost": float("nan")}},
    ],
)
def test_what_is_beyond_its_bounds_is_not_written(journal: Journal, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"no kind|has more than|JSON"):
        journal.append(**{"kind": TURN_ENDED, "instance": "a", **arguments})  # type: ignore[arg-type] # each is wrong
    assert journal.cursor().seq == 0


def test_pruning_takes_the_oldest_and_old_cursors_are_told_so(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    start = journal.cursor()
    with monkeypatch.context() as then:
        then.setattr(time, "time", lambda: now - 15 * DAY)
        old = journal.append(TURN_ENDED, "a")
        then.setattr(time, "time", lambda: now - 13 * DAY)
        young = journal.append(TURN_ENDED, "a")

    assert journal.prune(now) == 1

    assert journal.latest(5) == [young]
    with pytest.raises(TooOld, match="entries are kept for 14 days, and this cursor is older"):
        journal.after(start, 5)
    assert journal.after(Cursor(journal.epoch, old.seq), 5)[0] == [young]

    assert journal.prune(now + 14 * DAY) == 1
    assert journal.latest(5) == []
    assert journal.after(Cursor(journal.epoch, young.seq), 5) == ([], journal.cursor())
    assert journal.append(TURN_ENDED, "a").seq > young.seq


def test_a_clock_that_was_wrong_for_a_while_makes_no_holes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(TURN_ENDED, "a")
    with monkeypatch.context() as then:
        then.setattr(time, "time", lambda: 0.0)
        journal.append(TURN_ENDED, "b")

    assert journal.prune(time.time()) == 0
    assert len(journal.latest(5)) == 2


def test_a_flood_is_bounded_whatever_its_age(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencode_journal.journal.MAX_BYTES", 100_000)
    monkeypatch.setattr("opencode_journal.journal._PRUNE_BATCH", 4)
    entries = [journal.append(TURN_ENDED, str(number), data={"text": "ä" * 2000}) for number in range(50)]

    assert journal.prune(time.time()) == 4
    while journal.prune(time.time()):
        pass

    left = journal.latest(100)
    assert left == entries[-len(left) :]
    assert len(left) == 24, "as many as fit, and no fewer"


def test_what_an_earlier_version_wrote_counts(
    directory: Path, opened: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.mkdir(0o700)
    earlier = database.connect(directory / "journal.sqlite3", 1.0)
    database.migrate(earlier, MIGRATIONS[:1])
    earlier.execute("INSERT INTO about VALUES (1, 'abcdef', '')")
    for _ in range(3):
        earlier.execute(
            "INSERT INTO entries (at, kind, instance, session, ask, data) VALUES (9e9, 'a', '', '', '', '{}')"
        )
    earlier.close()
    (directory / "journal.sqlite3").chmod(0o600)
    monkeypatch.setattr("opencode_journal.journal.MAX_BYTES", 250)

    assert opened().prune(0) == 1


def test_states_and_handles_take_no_room_from_entries(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencode_journal.journal.MAX_BYTES", 100_000)
    entry = journal.append(TURN_ENDED, "a")
    journal.set_state("large", "x" * 200_000)

    assert journal.prune(time.time()) == 0
    assert journal.latest(5) == [entry]


def test_together_is_whole_or_nothing(journal: Journal) -> None:
    def half() -> None:
        journal.append(TURN_ENDED, "a")
        journal.set_state("open", ["per_1"])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        journal.together(half)
    assert (journal.cursor().seq, journal.state("open")) == (0, None)

    assert journal.together(lambda: (journal.append(TURN_ENDED, "a").seq, journal.cursor().seq)) == (1, 1)


def test_a_part_is_not_more_durable_than_the_whole(journal: Journal) -> None:
    def part() -> None:
        journal.append(TURN_ENDED, "a", durable=True)

    with pytest.raises(ValueError, match="what it is a part of is not durable"):
        journal.together(part)
    assert journal.cursor().seq == 0
    journal.together(part, durable=True)
    assert journal.cursor().seq == 1


def test_what_a_power_cut_may_have_taken_leaves_a_gap_that_no_cursor_falls_into(
    opened: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = opened().append(TURN_ENDED, "a")
    assert opened().append(TURN_ENDED, "a").seq == last.seq + 1

    monkeypatch.setattr("opencode_journal.opening._boot", lambda: "another")
    after = opened()
    # Of a hundred entries that were told of and lost.
    shown = Cursor(after.epoch, last.seq + 100)
    entry = after.append(TURN_ENDED, "b")
    assert after.after(shown, 5)[0] == [entry]


def test_what_is_durable_is_on_the_disk_before_it_is_told(journal: Journal) -> None:
    done: list[str] = []
    journal._opened.rows._db.set_trace_callback(done.append)
    journal.append(TURN_ENDED, "a", durable=True)
    durable, done[:] = list(done), []
    journal.append(TURN_ENDED, "a")

    assert durable[0] == "PRAGMA synchronous = FULL"
    assert durable.index("COMMIT") < durable.index("PRAGMA synchronous = NORMAL")
    assert "COMMIT" in done
    assert not any("synchronous" in statement for statement in done)


def test_only_its_owner_can_read_any_of_it(journal: Journal, directory: Path) -> None:
    journal.append(TURN_ENDED, "a")

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = list(directory.iterdir())
    assert len(files) > 1  # the log beside it
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
