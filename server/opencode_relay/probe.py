"""Whether OpenCode answers on a port of this machine."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

Health = Literal["ok", "failed", "unverified"]

_SECONDS: Final = 3.0
"""For the whole probe; the launcher gives a pong 6 s."""
_MAX_STATUS_LINE: Final = 1024
_REQUEST: Final = b"GET /global/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_ALIVE: Final = frozenset({b"200", b"401"})
"""401: it wants a password, which is the reader's affair."""


async def probe(port: int) -> Health:
    """Ask for the health of what listens on 127.0.0.1:`port`; takes up to 3 s."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_MAX_STATUS_LINE)
            try:
                writer.write(_REQUEST)
                status = (await reader.readline()).split()
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, ValueError):  # ValueError: a status line without end
        return "failed"
    return "ok" if len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1] in _ALIVE else "failed"
