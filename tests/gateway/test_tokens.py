"""Bearer tokens of machines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from opencode_gateway import machine_tokens
from opencode_gateway.authentication import build_auth
from opencode_gateway.errors import CommandRefused
from opencode_gateway.machine_tokens import MachineTokens
from support.gateway.authorization import PUBLIC_URL, AuthorizationServer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machines(server: AuthorizationServer) -> MachineTokens:
    return MachineTokens(server.store, server.configuration.resource, clock=server.clock)


async def test_a_token_says_whose_it_is_and_what_it_may_do(
    server: AuthorizationServer, machines: MachineTokens
) -> None:
    token = machine_tokens.add(server.store, "nightly.backup", ["drive", "observe"], now=server.clock())

    found = await machines.verify_token(token)

    assert re.fullmatch(r"ogm_[A-Za-z0-9_-]{43}", token)
    assert found is not None
    assert found.scopes == ["observe", "drive"]
    assert (found.subject, found.client_id, found.resource) == (
        "nightly.backup",
        "token:nightly.backup",
        f"{PUBLIC_URL}/mcp",
    )
    assert found.claims == {"login": "nightly.backup", "client_name": "nightly.backup", "kind": "token"}


async def test_a_token_is_good_until_its_end(server: AuthorizationServer, machines: MachineTokens) -> None:
    now = server.clock()
    token = machine_tokens.add(server.store, "a", ["observe"], now=now, expires_at=now + 100)

    server.clock.advance(99)
    assert await machines.verify_token(token) is not None
    server.clock.advance(1)
    assert await machines.verify_token(token) is None


async def test_a_revoked_token_is_no_good_at_once_and_its_name_is_free(
    server: AuthorizationServer, machines: MachineTokens
) -> None:
    token = machine_tokens.add(server.store, "a", ["observe"], now=server.clock())
    other = machine_tokens.add(server.store, "b", ["observe"], now=server.clock())

    machine_tokens.revoke(server.store, "a")

    assert await machines.verify_token(token) is None
    assert await machines.verify_token(other) is not None
    assert machine_tokens.add(server.store, "a", ["observe"], now=server.clock()) != token
    with pytest.raises(CommandRefused, match="there is no token"):
        machine_tokens.revoke(server.store, "c")


@pytest.mark.parametrize("token", ["", "ogm_", "ogm_" + "A" * 43, "A" * 43])
async def test_what_nobody_made_is_no_token(machines: MachineTokens, token: str) -> None:
    assert await machines.verify_token(token) is None


async def test_tokens_of_people_and_of_machines_are_taken_side_by_side(
    server: AuthorizationServer, machines: MachineTokens
) -> None:
    both = build_auth(server.configuration, server.store)
    client_id = await server.registered()
    person = (await server.tokens(client_id))["access_token"]
    machine = machine_tokens.add(server.store, "a", ["observe"], now=server.clock())

    for token, expected in ((person, client_id), (machine, "token:a")):
        found = await both.verify_token(token)
        assert found is not None
        assert found.client_id == expected
    assert await both.verify_token("nobody's") is None
    assert await server.provider.verify_token(machine) is None


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a" * 64, "../a", "ä"])
def test_a_name_is_plain(server: AuthorizationServer, name: str) -> None:
    with pytest.raises(CommandRefused, match="name"):
        machine_tokens.add(server.store, name, ["observe"], now=0.0)


def test_a_token_needs_a_capability_a_free_name_and_a_future(server: AuthorizationServer) -> None:
    machine_tokens.add(server.store, "a", ["observe"], now=0.0)

    with pytest.raises(CommandRefused, match="--capability"):
        machine_tokens.add(server.store, "b", [], now=0.0)
    with pytest.raises(CommandRefused, match="already"):
        machine_tokens.add(server.store, "a", ["observe"], now=0.0)
    with pytest.raises(CommandRefused, match="over already"):
        machine_tokens.add(server.store, "b", ["observe"], now=10.0, expires_at=10.0)


def test_there_is_a_most(server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_tokens, "MAX_TOKENS", 1)
    machine_tokens.add(server.store, "a", ["observe"], now=0.0)

    with pytest.raises(CommandRefused, match="revoke some"):
        machine_tokens.add(server.store, "b", ["observe"], now=0.0)


def test_no_token_can_be_read_from_the_database(server: AuthorizationServer, tmp_path: Path) -> None:
    token = machine_tokens.add(server.store, "a", ["observe"], now=0.0)

    files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())

    assert token.encode() not in files
    (listed,) = machine_tokens.list_tokens(server.store)
    assert token not in repr(listed)
