"""A journal on a real disk that is full: what cannot be kept is refused, and it recovers when there is room."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from opencode_journal.entries import ASK_OPENED, TURN_ENDED
from support.fleet.full_disk import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opencode_journal.journal import Journal

BYTES = 2_000_000


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a small disk of its own."""
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={BYTES},mode=0700", "none", place],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        # Mounting needs root; `make test` on CI has it, a person at their desk may not.
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def filled(place: Path) -> Path:
    """Return a file that takes all the room that is left there."""
    file = place / "filler"
    with file.open("wb", buffering=0) as written, suppress(OSError):
        while written.write(bytes(4096)):
            pass
    assert os.statvfs(place).f_bavail == 0
    return file


def test_a_full_disk_takes_nothing_that_it_cannot_keep_and_recovers(
    directory: Path, opened: Callable[[], Journal]
) -> None:
    journal = opened()
    begun = journal.cursor()
    assert journal.append(TURN_ENDED, "laptop", "ses_before", durable=True).seq == 1
    filler = filled(directory)
    kept = fill(journal)  # the write-ahead log has room of its own at first
    # What is no promise is remembered all the same, and the server says what helps.
    journal.append(TURN_ENDED, "laptop", "ses_meanwhile", data={"text": "z" * 4000})
    assert not journal.is_kept
    assert "full" in journal.trouble

    filler.unlink()
    assert journal._opened.look()

    assert journal.trouble == ""
    entries, _ = opened().after(begun, 5_000)
    assert [entry.kind for entry in entries] == [TURN_ENDED] + [ASK_OPENED] * kept + [TURN_ENDED]
    assert entries[-1].session == "ses_meanwhile"
    journal.append(TURN_ENDED, "laptop", "ses_after", durable=True)
    assert opened().latest(1)[0].session == "ses_after"
