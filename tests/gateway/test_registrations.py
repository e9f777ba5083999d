"""What a client that registered is until somebody consents: its own id, and nothing that is stored."""

from __future__ import annotations

import io
import json
import string
from secrets import token_urlsafe
from typing import TYPE_CHECKING

import httpx
import pytest

from opencode_gateway.audit import AuditLog
from opencode_gateway.configuration import Audit
from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth import client_rows
from opencode_gateway.oauth.enrolment import list_clients, revoke_client
from opencode_gateway.oauth.registrations import shown_id
from opencode_gateway.oauth.requests import LIFETIME_SECONDS
from support.gateway.authorization import CALLBACK, AuthorizationServer, proof

if TYPE_CHECKING:
    from pathlib import Path


def stranger(server: AuthorizationServer, address: str) -> httpx.AsyncClient:
    """Return a client of the same server that comes from `address`."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(server.app, client=(address, 1)), base_url=server.configuration.public_url
    )


async def test_a_flood_of_registrations_keeps_nobody_out(server: AuthorizationServer) -> None:
    server.open_window()
    metadata = {"redirect_uris": [CALLBACK], "client_name": "Flood"}

    async def flood(first: int) -> set[int]:
        statuses = set()
        for number in range(first, first + 1000):
            async with stranger(server, f"2001:db8:{number:x}::1") as http:
                statuses.add((await http.post("/register", json=metadata)).status_code)
        return statuses

    statuses = await flood(0)
    answer = await server.register(client_name="Mine")
    assert answer.status_code == 201, answer.text
    statuses |= await flood(1000)
    pkce = proof()
    asked = await server.authorize(answer.json()["client_id"], pkce.challenge)
    server.clock.advance(120)  # the person types a password
    statuses |= await flood(2000)
    code = server.consent(asked.headers["location"])["code"]
    statuses |= await flood(3000)
    given = await server.exchange(answer.json()["client_id"], code, pkce.verifier)

    assert statuses == {201}
    assert given.status_code == 200, given.text
    assert [client.name for client in list_clients(server.store)] == ["Mine"]
    with server.store.transaction(write=False) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}  # noqa: S608 # a test
    assert rows == dict.fromkeys(names, 0) | {"enrolment": 1, "clients": 1, "sessions": 1, "codes": 1, "tokens": 2}
    told = [event for event in server.events if event.event == "client-registered"]
    assert 1 <= len(told) <= 110, "strangers push nothing else out of the audit log"


async def test_one_client_registers_again_and_again_from_one_address(server: AuthorizationServer) -> None:
    ids = [await server.registered(client_name="OpenCode") for _ in range(60)]

    assert len(set(ids)) == 60
    for client_id in (ids[0], ids[-1]):
        await server.tokens(client_id)


async def test_an_id_is_short_where_a_client_says_what_clients_say(server: AuthorizationServer) -> None:
    assert len(await server.registered(client_name="Claude")) < 160


async def test_what_does_not_fit_into_an_id_is_refused(tmp_path: Path) -> None:
    server = AuthorizationServer(tmp_path, clients={"loopback_redirects": True})
    server.open_window()

    long_ones = [f"http://127.0.0.1/{token_urlsafe(150)}" for _ in range(9)]
    await server.refuses_to_register("too long", redirect_uris=long_ones)
    assert (await server.register(redirect_uris=long_ones[:2])).status_code == 201

    await server.close()


async def test_an_id_that_was_changed_is_none(server: AuthorizationServer) -> None:
    client_id = await server.registered(client_name="Chat")

    swapped = client_id[:20] + client_id[20:40].swapcase() + client_id[40:]
    for other in (client_id[:-1], swapped, client_id.partition(".")[0], f"{client_id}."):
        assert (await server.authorize(other, proof().challenge)).status_code == 400
        assert (await server.exchange(other, "x", "y")).json()["error"] == "invalid_client"


async def test_an_id_of_another_gateway_is_none(server: AuthorizationServer, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = AuthorizationServer(elsewhere)
    client_id = await other.registered()
    await other.close()
    server.open_window()

    assert (await server.authorize(client_id, proof().challenge)).status_code == 400


async def test_an_id_outlives_a_restart_and_the_window(server: AuthorizationServer, tmp_path: Path) -> None:
    client_id = await server.registered()
    await server.close()

    again = AuthorizationServer(tmp_path)
    again.clock.advance(601)

    await again.tokens(client_id)
    await again.close()


async def test_a_client_that_is_not_used_within_an_hour_is_forgotten(server: AuthorizationServer) -> None:
    unused, in_time, used = await server.registered(), await server.registered(), await server.registered()
    await server.tokens(used)
    server.clock.advance(client_rows.UNUSED_SECONDS)
    asked = await server.authorize(in_time, proof().challenge)
    server.clock.advance(LIFETIME_SECONDS)

    server.consent(asked.headers["location"])

    assert {client.id for client in list_clients(server.store)} == {used, in_time}
    assert (await server.authorize(unused, proof().challenge)).status_code == 400


async def test_a_revoked_client_does_not_come_back_by_its_id(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    await server.tokens(client_id)
    asked = await server.authorize(client_id, proof().challenge)

    revoke_client(server.store, shown_id(client_id))

    assert (await server.authorize(client_id, proof().challenge)).status_code == 400
    with pytest.raises(CommandRefused, match="no longer registered"):
        server.consent(asked.headers["location"])
    assert list_clients(server.store) == []


async def test_a_revoked_client_does_not_come_back_by_another_spelling_of_its_id(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    await server.tokens(client_id)
    revoke_client(server.store, client_id)

    # The last letter of a signature holds two bits that nobody reads, and base64 passes over what is no letter of it.
    letters = string.ascii_letters + string.digits + "-_"
    others = [*(client_id[:-1] + letter for letter in letters), f"{client_id}=", f"{client_id}\u00e4"]
    for other in others:
        assert server.provider.clients.known(other) is None, other


async def test_a_client_that_nobody_has_granted_anything_to_is_revoked_by_its_own_id(
    server: AuthorizationServer,
) -> None:
    client_id = await server.registered()
    asked = await server.authorize(client_id, proof().challenge)

    assert revoke_client(server.store, client_id) == 0

    with pytest.raises(CommandRefused, match="no longer registered"):
        server.consent(asked.headers["location"])
    assert (await server.authorize(client_id, proof().challenge)).status_code == 400


async def test_the_longest_id_is_whole_in_the_audit_log_and_a_part_of_it_revokes_nothing(tmp_path: Path) -> None:
    server = AuthorizationServer(tmp_path, clients={"loopback_redirects": True})
    client_id = await server.registered(redirect_uris=[f"http://127.0.0.1/{token_urlsafe(190)}" for _ in range(2)])
    assert len(client_id) > 650  # random, and compressed
    written = io.StringIO()
    AuditLog(Audit(), stream=written).write(server.events[-1])
    assert json.loads(written.getvalue())["client_id"] == client_id

    for part in (f"{client_id[:500]}\u2026", client_id[:-1], client_id[:600]):
        with pytest.raises(CommandRefused, match="there is no client"):
            revoke_client(server.store, part)
    assert server.provider.clients.known(client_id) is not None

    revoke_client(server.store, client_id)

    assert server.provider.clients.known(client_id) is None
    await server.close()


async def test_a_client_without_a_session_makes_room_for_one_that_is_connected(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_rows, "MAX_CLIENTS", 2)
    idle, busy = await server.registered(), await server.registered()
    tokens = [await server.tokens(client_id) for client_id in (idle, busy)]
    await server.http.post("/revoke", data={"client_id": idle, "token": tokens[0]["access_token"]})
    new = await server.registered()

    await server.tokens(new)

    assert {client.id for client in list_clients(server.store)} == {busy, new}


async def test_there_is_a_most_of_clients_that_are_used(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_rows, "MAX_CLIENTS", 2)
    ids = [await server.registered() for _ in range(3)]
    for client_id in ids[:2]:
        await server.tokens(client_id)

    await server.refuses_to_register("clients revoke")
    asked = await server.authorize(ids[2], proof().challenge)
    with pytest.raises(CommandRefused, match="clients revoke"):
        server.consent(asked.headers["location"])
