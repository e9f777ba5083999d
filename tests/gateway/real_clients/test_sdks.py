"""Clients on the SDKs: TypeScript and Python of either generation, FastMCP, and mcp-remote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.clients.client import (
    FastMcp3,
    FastMcp4,
    McpRemote,
    PythonSdk1,
    PythonSdk2,
    TypeScriptSdk1,
    TypeScriptSdk2,
)
from support.clients.whole_way import goes_the_whole_way

if TYPE_CHECKING:
    from support.clients.client import RealClient
    from support.clients.desktop import Desktop
    from support.clients.front import Front

CLIENTS = [TypeScriptSdk1, TypeScriptSdk2, PythonSdk1, PythonSdk2, FastMcp3, FastMcp4, McpRemote]


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_on_an_sdk_goes_the_whole_way(front: Front, desktop: Desktop, kind: type[RealClient]) -> None:
    with kind(desktop, front.url_to_paste) as client:
        goes_the_whole_way(front, client)
