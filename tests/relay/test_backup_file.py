"""A backup's file, which anybody may have made."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_relay.backup.archive import Archive
from opencode_relay.errors import BackupError


def changed(backup: bytes, change: Any) -> bytes:
    """Return the backup with `change(infos)` applied to its list of (TarInfo, content)."""
    with tarfile.open(fileobj=io.BytesIO(backup)) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr] # files alone
    change(members)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Any:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        members.append((info, b""))

    return change


def say(**fields: object) -> Any:
    """Have the manifest say something else."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info, content = members[0]
        members[0] = (info, json.dumps({**json.loads(content), **fields}).encode())

    return change


def spoil(name: str) -> Any:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[:] = [(info, b"x" + content[1:] if info.name == name else content) for info, content in members]

    return change


def sound() -> bytes:
    """Return a backup with nothing wrong with it."""
    files = {
        "relay/clients.json": b"{}",
        "ssh/ssh_host_ed25519_key": b"private",
        "gateway/users.json": b'{"ann": {}}',
    }
    return Archive.of(files, hostname="relay", at=datetime(2026, 11, 30, tzinfo=UTC)).to_bytes()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (add("/etc/cron.d/x"), "leads elsewhere"),
        (add("relay/../../x"), "leads elsewhere"),
        (add("ssh/ssh_host_x_key", tarfile.SYMTYPE, "/etc/shadow"), "no plain file"),
        (add("ssh/ssh_host_x_key", tarfile.LNKTYPE, "relay/clients.json"), "no plain file"),
        (add("ssh/ssh_host_x_key", tarfile.CHRTYPE), "no plain file"),
        (add("ssh/ssh_host_x_key", tarfile.FIFOTYPE), "no plain file"),
        (add("ssh", tarfile.DIRTYPE), "no plain file"),
        (add("relay/authorized_keys"), "belongs into no backup"),
        (add("ssh/ssh_host_x_key"), "belongs into no backup"),
        (add("relay/clients.json"), "twice"),
        (lambda members: members.pop(), "is missing in it"),
        (lambda members: members.pop(0), "has no manifest.json"),
        (spoil("relay/clients.json"), "was changed, or is damaged"),
        (say(format=2), "manifest.json"),
        (say(hostname="\x1b[2J"), "manifest.json"),
        (say(members=[]), "belongs into no backup"),
    ],
)
def test_a_tar_that_nobody_vouches_for_is_refused_in_a_line(change: Any, why: str) -> None:
    with pytest.raises(BackupError, match=why) as refused:
        Archive.parse(changed(sound(), change), "hostile.tar")
    assert str(refused.value).startswith("hostile.tar is no backup of a relay that can be used: ")
    assert str(refused.value).isprintable()


def test_headers_of_headers_without_end_are_refused() -> None:
    longname = tarfile.TarInfo("././@LongLink")
    longname.type, longname.size = tarfile.GNUTYPE_LONGNAME, 1
    chain = (longname.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * 3000
    with pytest.raises(BackupError):
        Archive.parse(chain + bytes(1024), "it")


@pytest.mark.parametrize("cut", [0, 100, 512, 1500, -8000])
def test_what_is_no_whole_tar_is_refused(cut: int) -> None:
    with pytest.raises(BackupError):
        Archive.parse(sound()[:cut], "cut.tar")


@given(at=st.integers(0, len(sound()) - 1), byte=st.integers(0, 255))
def test_whatever_byte_is_another_the_files_are_what_the_manifest_says_or_it_is_refused(at: int, byte: int) -> None:
    damaged = bytearray(sound())
    damaged[at] = byte
    try:
        archive = Archive.parse(bytes(damaged), "damaged.tar")
    except BackupError:
        return
    assert archive.files == Archive.parse(sound(), "sound.tar").files
