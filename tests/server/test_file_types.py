"""What a file is, by its bytes, and what it is called then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_common.file_types import (
    GIF,
    JPEG,
    MAX_FILE_BYTES,
    MAX_NAME,
    MAX_TEXT_BYTES,
    PDF,
    PNG,
    TEXT,
    WEBP,
    BadFile,
    FileType,
    file_name,
    file_type,
)
from opencode_common.text import UNSAFE
from support.fleet import pictures


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (pictures.PNG, PNG),
        (pictures.JPEG, JPEG),
        (pictures.GIF, GIF),
        (pictures.WEBP, WEBP),
        (pictures.PDF, PDF),
        (b"plain\ttext\r\n\x1b[31mred\x1b[0m\n", TEXT),
        ("grüße 🌍".encode(), TEXT),
        (b"<svg><script>alert(1)</script></svg>", TEXT),
    ],
)
def test_a_file_is_what_its_bytes_are(content: bytes, found: FileType) -> None:
    assert file_type(content) == found


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\0x", "is none of what is taken"),
        (b"MZ\x90\0\3\0\0\0", "is none of what is taken"),
        (b"PK\3\4\x14\0", "is none of what is taken"),
        (b"a\0b", "is none of what is taken"),
        (pictures.HEIC, "HEIC"),
        (pictures.PNG[:-12], "cut off or damaged"),
        (pictures.PNG[:8] + b"\0\0\0\x0dIHDR" + bytes(20) + b"IEND", "cut off or damaged"),
        (pictures.JPEG[:12], "cut off or damaged"),
        (pictures.GIF[:10], "cut off or damaged"),
        (pictures.WEBP[:-4], "cut off or damaged"),
        (b"RIFF\x1a\0\0\0WEBPnone" + bytes(20), "cut off or damaged"),
        (pictures.PDF[:-7], "cut off or damaged"),
        (b"x" * (MAX_TEXT_BYTES + 1), "a text of more than 500 kB"),
        (pictures.png(noise=b"x" * MAX_FILE_BYTES), "larger than 5 MB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_taken_is_refused_with_what_helps(content: bytes, why: str) -> None:
    with pytest.raises(BadFile) as refused:
        file_type(content)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "found", "name"),
    [
        ("IMG_1.JPG", JPEG, "IMG_1.JPG"),
        ("a.jpeg", JPEG, "a.jpeg"),
        ("main.py", TEXT, "main.py"),
        ("Makefile", TEXT, "Makefile"),
        ("evil.png", TEXT, "evil.png.txt"),
        ("shot.txt", PNG, "shot.txt.png"),
        ("../../etc/passwd", TEXT, "passwd"),
        ("C:\\Users\\ann\\shot.png", PNG, "shot.png"),
        ("a\u202egnp.exe", PNG, "agnp.exe.png"),
        ("", PNG, "file.png"),
        ("...", TEXT, "file"),
    ],
)
def test_a_name_is_the_last_part_of_what_the_sender_calls_it(wanted: str, found: FileType, name: str) -> None:
    assert file_name(wanted, found) == name


@given(st.text(max_size=2_000))
def test_no_name_holds_a_separator_or_a_control_character_or_is_long(wanted: str) -> None:
    name = file_name(wanted, PNG)
    assert UNSAFE.search(name) is None
    assert not set(name) & set("/\\\n\0")
    assert 0 < len(name) <= MAX_NAME
