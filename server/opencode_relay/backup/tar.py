"""Files in a tar, and out of one that nobody vouches for. Only the standard library, as another account runs this."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_MEMBERS: Final = 64


def pack(files: Mapping[str, bytes], *, modified: int = 0) -> bytes:
    """Return a tar of these files in this order, root's and with mode 0600. `modified`: seconds since the epoch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), 0o600, modified
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, bytes]:
    """Return the files of a tar by name. Nothing is written anywhere.

    Raises:
        ValueError: it is no tar, is cut short, or holds anything but plain files of plain names; the text says what.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            while info := archive.next():
                _check(info, files)
                member = archive.extractfile(info)
                files[info.name] = member.read() if member else b""
                if len(files[info.name]) != info.size:
                    raise ValueError("it is cut short")
    except (tarfile.TarError, EOFError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError("it is no tar, or is cut short") from error
    return files


def _check(info: tarfile.TarInfo, before: Mapping[str, bytes]) -> None:
    shown = ascii(info.name[:80])
    parts = info.name.split("/")
    if info.name.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"it holds the path {shown}, which leads elsewhere")
    if info.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or info.issparse() or info.pax_headers:
        raise ValueError(f"{shown} in it is no plain file")
    if info.name in before or len(before) >= _MAX_MEMBERS:
        raise ValueError(f"it holds {shown} twice, or more than {_MAX_MEMBERS} files")
