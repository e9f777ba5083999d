"""Overwriting lines of a file that another command puts a new one in place of."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from opencode_common.files import write_atomically
from opencode_relay.files import blank_lines

if TYPE_CHECKING:
    from pathlib import Path


def is_of_laptop(line: bytes) -> bool:
    return line.endswith(b" laptop")


def test_lines_are_overwritten_and_no_other_moves(tmp_path: Path) -> None:
    keys = tmp_path / "authorized_keys"
    keys.write_bytes(b"# ours\nkey1 desktop\nkey2 laptop\nkey3 phone\n")
    inode = keys.stat().st_ino
    blank_lines(keys, is_of_laptop)
    assert (keys.read_bytes(), keys.stat().st_ino) == (b"# ours\nkey1 desktop\n###########\nkey3 phone\n", inode)


def test_a_file_that_took_its_place_meanwhile_has_its_lines_overwritten_too(tmp_path: Path) -> None:
    keys = tmp_path / "authorized_keys"
    keys.write_bytes(b"key2 laptop\n")
    newer = [b"key0 server\nkey9 laptop\n"]

    def doomed(line: bytes) -> bool:
        if newer:  # between the look at the file and the change of it
            write_atomically(keys, newer.pop(), mode=0o640)
        return is_of_laptop(line)

    blank_lines(keys, doomed)
    assert keys.read_bytes() == b"key0 server\n###########\n"


def test_a_file_whose_place_is_always_taken_is_not_said_to_be_done(tmp_path: Path) -> None:
    keys = tmp_path / "authorized_keys"
    keys.write_bytes(b"key2 laptop")

    def doomed(_: bytes) -> bool:
        write_atomically(keys, b"key2 laptop", mode=0o640)
        return True

    with pytest.raises(OSError, match="again and again") as failed:
        blank_lines(keys, doomed)
    assert failed.value.errno == errno.ESTALE
