"""Agents that tests drive straight, without the fleet above them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.opencodes.connected import guard_document, opencode2_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opencode_fleet.agents.opencode2 import OpenCode2
    from support.opencodes.opencode2 import Service2


@pytest.fixture
async def agent(service2: Service2, tmp_path: Path) -> AsyncIterator[OpenCode2]:
    """A real OpenCode 2 that tests share, in which a launcher has opened the test's own directory."""
    async with opencode2_at(service2, guard_document({str(tmp_path): "laptop-api"})) as connected:
        yield connected
