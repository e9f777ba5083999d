"""What the instances of one agent's further directories are called; the first one has its registration's name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from opencode_common.registration import is_name

if TYPE_CHECKING:
    from collections.abc import Container

    from opencode_fleet.model import Workplace
    from opencode_fleet.transports.base import Endpoint

_ODD = re.compile(r"[^\w.-]+")
MAX_BASE = 56
"""Characters, so that a number still fits behind."""


def name_of(workplace: Workplace, endpoint: Endpoint, taken: Container[str]) -> str:
    """Return a name that is not taken: the one that its launcher chose, else MACHINE-DIRECTORY.

    A number stands behind one that would be taken.
    A name of an enrolled machine begins with the machine's own, as the relay sees to for registrations.
    """
    chosen = workplace.name
    if not (chosen and is_name(chosen) and _belongs(chosen, endpoint.client)):
        machine = endpoint.client or endpoint.hostname.partition(".")[0]
        last = workplace.directory.rstrip("/").rpartition("/")[2] or "root"
        chosen = _ODD.sub("-", f"{machine}-{last}").strip(".-")[:MAX_BASE] or "instance"
    name, number = chosen, 1
    while name in taken:
        number += 1
        name = f"{chosen[:MAX_BASE]}-{number}"
    return name


def _belongs(name: str, client: str | None) -> bool:
    return client is None or name == client or name.startswith(f"{client}-")
