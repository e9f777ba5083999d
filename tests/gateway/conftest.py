"""Fixtures of the gateway's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.gateway.authorization import AuthorizationServer
from support.gateway.fake_documents import DocumentHost, document_host
from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AuthorizationServer]:
    """An authorization server as it is configured by default, its window closed."""
    server = AuthorizationServer(tmp_path)
    yield server
    await server.close()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A running gateway with the fixture server behind it, that tests share: leave it alive."""
    with Gateway(tmp_path_factory.mktemp("gateway"), {"fixture": fixture_entry()}) as running:
        yield running


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DocumentHost]:
    """A chat service's host, where clients' documents are."""
    async with document_host(tmp_path, monkeypatch) as host:
        yield host
