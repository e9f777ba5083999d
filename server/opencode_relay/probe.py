"""Whether OpenCode answers on a port of this machine."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

Health = Literal["ok", "failed", "unverified"]

PONG_SECONDS: Final = 3.0
"""For a probe before a pong, which launchers of before give 6 s."""
ANSWER_SECONDS: Final = 8.0
"""For one before any other answer, for which launchers wait 10 s: after a break the way up is full."""
_MAX_STATUS_LINE: Final = 1024
_REQUEST: Final = b"GET /global/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_ALIVE: Final = frozenset({b"200", b"401"})
"""401: it wants a password, which is the reader's affair."""


async def probe(port: int, within: float) -> Health:
    """Ask for the health of what listens on 127.0.0.1:`port`; `within`: seconds, after which it is failed."""
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_MAX_STATUS_LINE)
            try:
                writer.write(_REQUEST)
                status = (await reader.readline()).split()
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, ValueError):  # ValueError: a status line without end
        return "failed"
    return "ok" if len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1] in _ALIVE else "failed"
