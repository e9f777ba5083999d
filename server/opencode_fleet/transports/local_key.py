"""The key with which a guard on this machine lets in; its launcher lays it beside the registration."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

import aiohttp

from opencode_common.files import read_small_file

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_BYTES = 1024
USER = "opencode"
_KEY = re.compile(r"[!-~]{16,200}")


def local_key_headers(directory: Path, name: str) -> dict[str, str]:
    """Return the headers for the guard of the registration `name`; empty where it has no key that is to be believed.

    See `docs/contract.md`: `.NAME.key`, one line, closed to everybody but its owner.
    """
    path = directory / f".{name}.key"
    try:
        status = path.lstat()
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o077:
            log.warning("the key of %r is not used: it must be its user's own and closed to others", name)
            return {}
        key = read_small_file(path, MAX_BYTES, follow=False).decode("ascii").strip()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("the key of %r cannot be read: %s", name, error)
        return {}
    return {"authorization": aiohttp.encode_basic_auth(USER, key)} if _KEY.fullmatch(key) else {}
