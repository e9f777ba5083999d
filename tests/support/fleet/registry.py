"""Registration files as docs/contract.md has them, written without the launcher's help.

The tests of the server must not depend on the launcher (and the reverse), so this is a third writer.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def registration(name: str, port: int, *, cwd: str = "/", **extra: object) -> dict[str, object]:
    """Return the registration of an instance that is reached on 127.0.0.1:`port`.

    `extra` replaces fields or adds optional ones (`client`, `closedAt`, …).
    """
    return {
        "name": name,
        "hostname": "test-host",
        "port": port,
        "localPort": port,
        "cwd": cwd,
        "connectedAt": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        **extra,
    }


def register(directory: Path, fields: Mapping[str, object]) -> Path:
    """Write `fields` to `{name}.json` in `directory` atomically and return the file.

    The directory is made, mode 0700, if it is missing.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{fields['name']}.json"
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    Path(temporary).replace(path)
    return path
