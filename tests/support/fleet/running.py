"""A running fleet over a transport of the test's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opencode_fleet.fleet import Fleet
from opencode_fleet.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.transports.base import Transport


@asynccontextmanager
async def a_fleet_over(transport: Transport, *, health_timeout: float = 5.0) -> AsyncIterator[Fleet]:
    """Run a fleet of whatever the transport tells."""
    async with Fleet(transport, ServerSettings(health_timeout=health_timeout)).running() as fleet:
        yield fleet
