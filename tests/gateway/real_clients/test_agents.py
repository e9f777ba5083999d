"""Coding agents and the MCP Inspector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.clients.agents import ClaudeCode, Codex, Inspector, OpenCode1, OpenCode2
from support.clients.whole_way import goes_the_whole_way

if TYPE_CHECKING:
    from support.clients.client import RealClient
    from support.clients.desktop import Desktop
    from support.clients.front import Front

# Some start a dozen processes of half a gigabyte, one after another.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("kind", [ClaudeCode, Codex, OpenCode1, OpenCode2, Inspector])
def test_an_agent_goes_the_whole_way(front: Front, desktop: Desktop, kind: type[RealClient]) -> None:
    with kind(desktop, front.url_to_paste) as client:
        goes_the_whole_way(front, client)
