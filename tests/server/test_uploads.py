"""Places for uploads: filled once, in time, for whoever asked, and never more than there is room for."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from opencode_common import uploads as module
from opencode_common.file_types import BadFile
from opencode_common.uploads import (
    KEPT_SECONDS,
    MAX_OF_LOGIN,
    MAX_PLACES,
    OPEN_SECONDS,
    Full,
    Uploads,
)
from support.fleet.pictures import PNG

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(tmp_path: Path, clock: Clock) -> Uploads:
    return Uploads(tmp_path / "uploads", clock)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "uploads").iterdir())


def test_a_place_is_filled_once_and_read_by_whoever_asked(uploads: Uploads, tmp_path: Path) -> None:
    place, secret = uploads.open("ann")
    assert secret not in str(files(tmp_path))
    assert uploads.login_of(secret) == "ann"
    assert uploads.file(place, "ann") is None
    assert uploads.fill(secret, "a/b.png", PNG) is not None
    assert uploads.login_of(secret) is None
    assert uploads.fill(secret, "other.png", PNG + b"other") is None
    assert uploads.file(place, "ann") == ("b.png", PNG)
    with pytest.raises(KeyError):
        uploads.file(place, "ben")
    uploads.remove(place)
    assert files(tmp_path) == []
    with pytest.raises(KeyError):
        uploads.file(place, "ann")


def test_what_is_not_taken_leaves_the_place_open(uploads: Uploads) -> None:
    _, secret = uploads.open("ann")
    with pytest.raises(BadFile):
        uploads.fill(secret, "x", b"\0")
    assert uploads.fill(secret, "x.png", PNG) is not None


def test_a_link_serves_for_ten_minutes_and_a_file_is_kept_for_a_day(
    uploads: Uploads, clock: Clock, tmp_path: Path
) -> None:
    place, secret = uploads.open("ann")
    _, late = uploads.open("ann")
    clock.now += OPEN_SECONDS - 1
    assert uploads.fill(secret, "x.png", PNG) is not None
    clock.now += 1
    assert uploads.login_of(late) is None
    assert uploads.fill(late, "x.png", PNG) is None
    uploads.prune()
    assert len(files(tmp_path)) == 2
    clock.now += KEPT_SECONDS - OPEN_SECONDS
    with pytest.raises(KeyError):
        uploads.file(place, "ann")
    uploads.prune()
    assert files(tmp_path) == []


def test_a_clock_that_is_set_back_opens_nothing_and_keeps_nothing_for_ever(uploads: Uploads, clock: Clock) -> None:
    _, secret = uploads.open("ann")
    clock.now -= 10
    assert uploads.login_of(secret) is None
    clock.now -= 2 * KEPT_SECONDS
    assert uploads.prune() == {}


def test_so_many_wait_of_one_login_and_of_all_together(uploads: Uploads) -> None:
    opened = [uploads.open("ann") for _ in range(MAX_OF_LOGIN)]
    with pytest.raises(Full, match="of yours wait"):
        uploads.open("ann")
    uploads.remove(opened[0][0])
    uploads.open("ann")
    for number in range(MAX_PLACES - MAX_OF_LOGIN):
        uploads.open(f"person-{number}")
    with pytest.raises(Full, match="too many uploads"):
        uploads.open("one more")


@pytest.mark.parametrize("secret", ["", "../x", "x" * 43, "x" * 44, "ü" * 43, "x" * 42 + "\n"])
def test_no_other_secret_leads_anywhere(uploads: Uploads, secret: str) -> None:
    uploads.open("ann")
    assert uploads.login_of(secret) is None
    assert uploads.fill(secret, "x.png", PNG) is None
    with pytest.raises(KeyError):
        uploads.file(secret, "ann")


def test_what_is_damaged_or_left_alone_is_removed_and_nothing_else(uploads: Uploads, tmp_path: Path) -> None:
    place, _ = uploads.open("ann")
    directory = tmp_path / "uploads"
    (directory / f"{place}.json").write_text("{")
    (directory / f"{'0' * 32}.file").write_bytes(b"left")
    (directory / "notes.json").write_text("somebody else's")
    assert uploads.prune() == {}
    assert files(tmp_path) == ["notes.json"]


def test_a_directory_of_others_is_not_used(uploads: Uploads, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir(mode=0o777)
    (tmp_path / "uploads").chmod(0o777)
    with pytest.raises(PermissionError):
        uploads.open("ann")
    assert files(tmp_path) == []


def test_a_disk_that_is_full_between_file_and_record_leaves_the_link_open(
    uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place, secret = uploads.open("ann")
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            uploads.fill(secret, "a.png", PNG)
    assert files(tmp_path) == [f"{place}.json"]
    assert uploads.fill(secret, "a.png", PNG) is not None
    assert uploads.file(place, "ann") == ("a.png", PNG)


def test_what_a_killed_process_was_writing_is_removed_and_what_is_being_written_is_not(
    uploads: Uploads, clock: Clock, tmp_path: Path
) -> None:
    place, _ = uploads.open("ann")
    staged = {name: tmp_path / "uploads" / f".{place}.file.{name}" for name in ("0000000a", "0000000b")}
    for path, age in zip(staged.values(), (OPEN_SECONDS + 1, 1), strict=True):
        path.write_bytes(PNG)
        os.utime(path, (clock.now - age, clock.now - age))
    stranger = tmp_path / "uploads" / ".notes"
    stranger.touch()
    uploads.prune()
    assert files(tmp_path) == sorted([f"{place}.json", staged["0000000b"].name, stranger.name])
