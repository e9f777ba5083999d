"""What the tests of the relay's side share: a provisioned relay, and an OpenCode of which only the health matters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from relay.provisioned import ProvisionedRelay
from support.opencodes.fake_health import FakeHealth
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def opencode() -> Iterator[FakeHealth]:
    """A stand-in for OpenCode."""
    with FakeHealth() as fake:
        yield fake


@pytest.fixture(scope="session")
def shared_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProvisionedRelay]:
    """A relay that keeps running between tests, with the clients `laptop` and `desktop`."""
    # Without what sshd does by itself to connections that run no session: here it is the agent's turn.
    with ProvisionedRelay(tmp_path_factory.mktemp("relay"), sshd={"UnusedConnectionTimeout": "none"}) as relay:
        relay.enrol("laptop", "desktop")
        yield relay


@pytest.fixture
def relay(shared_relay: ProvisionedRelay) -> ProvisionedRelay:
    """The same with nobody connected. Tests leave its clients as they are."""
    eventually(lambda: not shared_relay.session_commands(), "what the test before left is gone")
    shared_relay.until_registered()
    return shared_relay


@pytest.fixture(scope="module")
def _own_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProvisionedRelay]:
    with ProvisionedRelay(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


@pytest.fixture
def own_relay(_own_relay: ProvisionedRelay) -> Iterator[ProvisionedRelay]:
    """A relay whose clients the tests of a module change, with `laptop` and `desktop` enrolled and no key revoked."""
    _own_relay.enrol("laptop", "desktop")
    yield _own_relay
    for revoked in json.loads(_own_relay.run("clients", "--json").stdout)["revoked"]:
        _own_relay.run("unrevoke", revoked["fingerprint"])
