"""A gateway for the real clients of one file, and a desktop for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.clients.desktop import Desktop
from support.clients.documents import OF_PROGRAMS
from support.clients.front import Front
from support.clients.recorded import CHATGPT_KEYS, OF_CHATS
from support.clients.recorded_client import KEY
from support.gateway.fake_client_hosts import ClientHosts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientHosts]:
    """The hosts of the clients' documents."""
    said = {**OF_PROGRAMS, **OF_CHATS, CHATGPT_KEYS: KEY.key_set()}
    with ClientHosts(tmp_path_factory.mktemp("hosts"), said) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def running_front(tmp_path_factory: pytest.TempPathFactory, hosts: ClientHosts) -> Iterator[Front]:
    with Front(tmp_path_factory.mktemp("front"), hosts) as front:
        yield front


@pytest.fixture
def front(running_front: Front) -> Iterator[Front]:
    """The gateway, at which nobody is logged in."""
    yield running_front
    running_front.revoke_sessions()


@pytest.fixture
def desktop(tmp_path: Path, front: Front) -> Iterator[Desktop]:
    """A desktop on which nothing was connected before."""
    desktop = Desktop(tmp_path, front.caddy.authority, front.trust())
    yield desktop
    desktop.sweep()
