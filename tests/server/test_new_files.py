"""Files that are put where nothing is yet, also on what has no hard links."""

from __future__ import annotations

import errno
import resource
import stat
from typing import TYPE_CHECKING

import pytest

from opencode_common.files import write_new
from support.fleet.fake_file_system import without_hard_links

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_new_file_needs_no_hard_links(tmp_path: Path, code: int) -> None:
    file = tmp_path / "relay.tar"
    with without_hard_links(code):
        write_new(file, b"content")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"content", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_without_hard_links_too_nothing_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "relay.tar"
    with without_hard_links(errno.EPERM, lambda: file.write_bytes(b"another's")), pytest.raises(FileExistsError):
        write_new(file, b"content")
    assert file.read_bytes() == b"another's"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_whole_without_hard_links_is_removed(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def narrow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))

    try:
        with without_hard_links(errno.EPERM, narrow), pytest.raises(OSError, match="File too large"):
            write_new(tmp_path / "relay.tar", b"content")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_any_other_failure_is_the_callers(tmp_path: Path) -> None:
    with without_hard_links(errno.EIO), pytest.raises(OSError, match="Input/output error"):
        write_new(tmp_path / "relay.tar", b"content")
    assert list(tmp_path.iterdir()) == []
