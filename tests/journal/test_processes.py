"""Several copies of the server on one journal: nothing is lost between them, and each hears of the others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from opencode_journal.entries import TURN_ENDED
from opencode_journal.journal import Journal
from support.fleet.lock_holder import locked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COPIES, EACH = 4, 300
OPEN = "import sys; from pathlib import Path; from opencode_journal.journal import Journal\n"
APPEND_MANY = f"""{OPEN}
from opencode_journal import opening
opening._PATIENCE = 60.0  # on a busy machine others may be kept from a processor while they write
sys.stdin.readline()
journal = Journal(Path(sys.argv[1]))
for number in range({EACH}):
    journal.append("turn-ended", sys.argv[2], str(number))
journal.handles("s", [("laptop", str(number)) for number in range({EACH})])
print(journal.epoch, journal.trouble)
"""
APPEND_ONE = f'{OPEN}Journal(Path(sys.argv[1])).append("turn-ended", "other")'
APPEND_UNTIL_KILLED = f"""{OPEN}
journal = Journal(Path(sys.argv[1]))
while True:
    print(journal.append("turn-ended", "other", durable=True).seq, flush=True)
"""
LISTEN = f"""{OPEN}
import asyncio

async def main():
    async with Journal(Path(sys.argv[1])).watching():
        print("there", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_copies_that_start_and_write_at_once_lose_nothing(directory: Path, opened: Callable[[], Journal]) -> None:
    command = [sys.executable, "-c", APPEND_MANY, str(directory)]
    copies = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(COPIES)
    ]
    for copy in copies:
        assert copy.stdin is not None
        copy.stdin.write("\n")
        copy.stdin.flush()
    said = {copy.communicate(timeout=120)[0] for copy in copies}

    journal = opened()
    assert said == {f"{journal.epoch} \n"}
    entries = journal.latest(2 * COPIES * EACH)
    assert Counter(entry.instance for entry in entries) == {str(number): EACH for number in range(COPIES)}
    for number in range(COPIES):
        own = [entry.session for entry in entries if entry.instance == str(number)]
        assert own == [str(each) for each in range(EACH)]
    assert len({journal.handle("s", "laptop", str(number)) for number in range(EACH)}) == EACH
    assert journal.handle("s", "laptop", "new") == f"s{EACH + 1}"


def test_what_a_killed_copy_was_told_is_kept_is_there(directory: Path, opened: Callable[[], Journal]) -> None:
    copy = subprocess.Popen(
        [sys.executable, "-c", APPEND_UNTIL_KILLED, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert copy.stdout is not None
    told = [int(copy.stdout.readline()) for _ in range(20)]
    copy.kill()
    told += [int(line) for line in copy.stdout if line.endswith("\n")]
    copy.communicate()

    assert {entry.seq for entry in opened().latest(100_000)} >= set(told)


async def test_whoever_waits_here_is_woken_by_what_is_appended_here(journal: Journal) -> None:
    waiting = [asyncio.create_task(journal.changed()) for _ in range(3)]
    await asyncio.sleep(0)
    journal.set_state("key", 1)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)

    journal.append(TURN_ENDED, "a")

    await asyncio.wait_for(asyncio.gather(*waiting), 30)


async def heard_of_another_process(journal: Journal, directory: Path) -> None:
    async with journal.watching():
        seen = journal.cursor()
        writer = await asyncio.create_subprocess_exec(sys.executable, "-c", APPEND_ONE, str(directory))
        while not (entries := journal.after(seen, 5)[0]):
            await asyncio.wait_for(journal.changed(), 30)
        assert [entry.instance for entry in entries] == ["other"]
        await writer.wait()


async def test_a_nudge_tells_at_once_of_another_process(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opencode_journal.journal._LOOK_SECONDS", 3600)
    await heard_of_another_process(journal, directory)


async def test_without_nudges_a_look_each_second_tells_of_it(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opencode_journal.nudges.Nudges._bind", lambda *_: False)
    await heard_of_another_process(journal, directory)


async def test_where_the_path_is_too_long_for_a_socket_a_look_tells_of_it(
    tmp_path: Path,
) -> None:
    directory = tmp_path / ("d" * 120)
    journal = Journal(directory)
    await heard_of_another_process(journal, directory)


@pytest.fixture
def killed(directory: Path) -> None:
    """A copy that was killed while it listened."""
    with subprocess.Popen([sys.executable, "-c", LISTEN, str(directory)], stdout=subprocess.PIPE, text=True) as copy:
        assert copy.stdout is not None
        assert copy.stdout.readline() == "there\n"
        copy.kill()


@pytest.mark.usefixtures("killed")
async def test_the_socket_of_a_copy_that_was_killed_is_cleared_away(
    opened: Callable[[], Journal], directory: Path
) -> None:
    assert len(list(directory.glob("*.nudge"))) == 1
    journal = opened()
    async with journal.watching():
        other = opened()
        other.append(TURN_ENDED, "a")
        await asyncio.wait_for(journal.changed(), 30)
        assert len(list(directory.glob("*.nudge"))) == 1
    assert list(directory.glob("*.nudge")) == []


async def test_a_watching_copy_notices_by_itself_that_the_file_was_removed(
    journal: Journal, directory: Path, opened: Callable[[], Journal]
) -> None:
    async with journal.watching():
        epoch = journal.epoch
        (directory / "journal.sqlite3").unlink()
        await asyncio.wait_for(journal.changed(), 30)
        assert journal.epoch != epoch
        assert journal.is_kept
        assert opened().epoch == journal.epoch


async def test_a_watching_copy_prunes(journal: Journal) -> None:
    journal.append(TURN_ENDED, "a")
    journal._opened.rows._db.execute("UPDATE entries SET at = 0")
    async with journal.watching():
        await asyncio.sleep(0)  # the first look
        assert journal.latest(5) == []


def test_a_file_that_another_program_holds_is_done_without_until_it_lets_go(
    journal: Journal, directory: Path
) -> None:
    with locked(directory / "journal.sqlite3") as holder:
        told = journal.append(TURN_ENDED, "a")
        assert "database is locked; end the program that is writing to it" in journal.trouble
        assert journal.latest(5) == [told]
        holder.let_go()

    assert journal._opened.look()
    assert journal.is_kept
    assert [entry.instance for entry in journal.latest(5)] == ["a"]
