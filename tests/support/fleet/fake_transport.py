"""A transport without files or ports of its own: it tells what the test tells it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from opencode_fleet.transports.base import Appeared, Change, Departed, Endpoint, ScanDone, Transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


class FakeTransport(Transport):
    """Instances that the test announces; what is reported of them is kept in `refused` and `alive`."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.alive: list[str] = []
        self._told: asyncio.Queue[Change | Exception] = asyncio.Queue()

    def announce(
        self,
        name: str,
        url: str,
        *,
        directory: str = "/",
        client: str | None = None,
        hostname: str = "elsewhere",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Let an instance be there."""
        self._told.put_nowait(Appeared(Endpoint(name, url, hostname, directory, client, tls=tls)))

    def withdraw(self, name: str, *, clean: bool = False) -> None:
        """Let it be gone; `clean`: with a goodbye."""
        self._told.put_nowait(Departed(name, clean=clean))

    def break_down(self, error: Exception) -> None:
        """Fail as no transport should."""
        self._told.put_nowait(error)

    async def changes(self) -> AsyncIterator[Change]:
        """Yield what the test tells."""
        yield ScanDone()
        while True:
            change = await self._told.get()
            if isinstance(change, Exception):
                raise change
            yield change

    def report_refused(self, endpoint: Endpoint) -> None:
        """Note it."""
        self.refused.append(endpoint.name)

    def report_alive(self, endpoint: Endpoint) -> None:
        """Note it."""
        self.alive.append(endpoint.name)

    def problems(self) -> list[str]:
        """Return none."""
        return []
