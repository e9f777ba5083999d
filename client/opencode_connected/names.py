"""Instance names: what is allowed (docs/contract.md), the default, and what to try when one is held."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHARACTERS = 64
MAX_BYTES = 200
"""Of UTF-8: the file names built from a name stay below the usual limit of 255."""

CLIENT_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"
"""What a client, a machine that is enrolled, may be called in the relay's inventory."""

_LAST_SUFFIX = 99
_APART = re.compile(r"[^\w.-]+")


def validate_name(name: str) -> None:
    """Check an instance's name.

    Raises:
        ValueError: with one line that says which rule the name breaks.

    """
    if not name:
        problem = "is empty"
    elif len(name) > MAX_CHARACTERS or len(name.encode(errors="surrogatepass")) > MAX_BYTES:
        problem = f"is longer than {MAX_CHARACTERS} characters or {MAX_BYTES} bytes"
    elif not name.isprintable():
        problem = "has a character that cannot be printed"
    elif "/" in name or "\\" in name:
        problem = "has a slash or a backslash"
    elif name.startswith("."):
        problem = "starts with a dot"
    elif name != name.strip():
        problem = "starts or ends with a space"
    else:
        return
    raise ValueError(f"the instance name {name!a} {problem}")


def default_name(hostname: str, directory: str) -> str:
    """Return `$(hostname)-$(basename directory)`, with everything replaced that a name may not hold."""
    host = hostname.split("\0", 1)[0]
    base = directory.rstrip("/").rpartition("/")[2] or "root"
    raw = f"{host}-{base}" if host else base
    safe = "".join(c if c.isprintable() and c not in "/\\" else "-" for c in raw)
    return _shortened(safe.lstrip(". "), "") or "opencode"


def with_client(name: str, client: str | None) -> str:
    """Return `name` as a provisioned relay has it: in one word, behind the client's own name unless it is there."""
    if client is None:
        return name
    word = "-".join(part for part in _APART.split(unicodedata.normalize("NFC", name)) if part)
    return word if word.startswith(client) else f"{client}-{word}"


def candidates(name: str) -> Iterator[str]:
    """Yield `name`, then `name-2`, `name-3` and so on, each cut to the limits."""
    yield _shortened(name, "")
    for number in range(2, _LAST_SUFFIX + 1):
        suffix = f"-{number}"
        yield _shortened(name, suffix) + suffix


def _shortened(name: str, suffix: str) -> str:
    """Cut `name` so that it fits with `suffix` behind it."""
    cut = name[: MAX_CHARACTERS - len(suffix)].rstrip()
    while len(cut.encode()) > MAX_BYTES - len(suffix):
        cut = cut[:-1].rstrip()
    return cut
