"""What the owner closes, switches off or revokes ends what is on its way, too: registrations, requests and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth.enrolment import close_window, list_clients, open_window, revoke_client
from opencode_gateway.oauth.known_clients import known_client
from opencode_gateway.oauth.redirects import switch
from support.gateway.authorization import AuthorizationServer, proof

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gateway.fake_documents import DocumentHost

VSCODE = "https://vscode.dev/redirect"
OF_VSCODE = {"redirect_uri": VSCODE}


@pytest.fixture
async def documented(tmp_path: Path, host: DocumentHost) -> AsyncIterator[AuthorizationServer]:
    """An authorization server that takes documents of the host."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    server = AuthorizationServer(data_dir, clients={"client_id_hosts": [host.netloc]})
    yield server
    await server.close()


def close(server: AuthorizationServer) -> None:
    server.clock.advance(1)
    close_window(server.store, now=server.clock())


def switch_off(server: AuthorizationServer) -> None:
    server.clock.advance(1)
    switch(server.store, known_client("vscode"), enabled=False, now=server.clock())


def open_for_vscode(server: AuthorizationServer) -> None:
    server.clock.advance(1)
    open_window(server.store, minutes=10, now=server.clock(), known=[known_client("vscode")])


async def let_in(server: AuthorizationServer) -> str:
    """Return the id of a client that registered in a window for Visual Studio Code, which is off."""
    open_for_vscode(server)
    answer = await server.register(redirect_uris=[VSCODE])
    assert answer.status_code == 201, answer.text
    return str(answer.json()["client_id"])


# Closing the window


async def test_a_client_that_nobody_has_consented_to_ends_with_the_window_that_is_closed(
    server: AuthorizationServer,
) -> None:
    client_id = await server.registered()
    asked = await server.authorize(client_id, proof().challenge)

    close(server)

    assert (await server.authorize(client_id, proof().challenge)).status_code == 400
    with pytest.raises(CommandRefused, match="connect it anew"):
        server.consent(asked.headers["location"])
    assert list_clients(server.store) == []


async def test_a_window_that_is_opened_anew_within_the_second_lets_in_until_it_is_closed(
    server: AuthorizationServer,
) -> None:
    server.clock.advance(1 - server.clock() % 1 + 0.2)
    close_window(server.store, now=server.clock())
    server.clock.advance(0.2)
    open_window(server.store, minutes=10, now=server.clock())
    server.clock.advance(0.2)
    client_id = await server.registered()
    assert (await server.authorize(client_id, proof().challenge)).status_code == 302

    close(server)

    assert (await server.authorize(client_id, proof().challenge)).status_code == 400


async def test_a_request_of_a_document_ends_with_the_window_that_is_closed(
    documented: AuthorizationServer, host: DocumentHost
) -> None:
    documented.open_window()
    asked = await documented.authorize(host.put_client("/client.json"), proof().challenge)

    close(documented)

    with pytest.raises(CommandRefused, match="connect it anew"):
        documented.consent(asked.headers["location"])


async def test_what_somebody_has_consented_to_outlives_the_window_that_is_closed(
    server: AuthorizationServer,
) -> None:
    client_id, pkce = await server.registered(), proof()
    code = await server.code(client_id, pkce.challenge)

    close(server)

    assert (await server.exchange(client_id, code, pkce.verifier)).status_code == 200
    await server.tokens(client_id)


async def test_a_window_that_is_opened_again_brings_nothing_back(server: AuthorizationServer) -> None:
    before = await server.registered()
    close(server)
    server.clock.advance(1)

    after = await server.registered()

    assert (await server.authorize(before, proof().challenge)).status_code == 400
    await server.tokens(after)


# Switching a client off


async def test_a_window_is_no_longer_for_a_client_that_is_switched_off(server: AuthorizationServer) -> None:
    client_id = await let_in(server)
    asked = await server.authorize(client_id, proof().challenge, **OF_VSCODE)

    switch_off(server)

    assert (await server.register(redirect_uris=[VSCODE])).status_code == 400
    assert (await server.authorize(client_id, proof().challenge, **OF_VSCODE)).status_code == 400
    with pytest.raises(CommandRefused, match="not an address that this relay allows any longer"):
        server.consent(asked.headers["location"])


async def test_a_client_that_a_window_let_in_gets_no_new_login_once_it_is_switched_off(
    server: AuthorizationServer,
) -> None:
    client_id, pkce = await let_in(server), proof()
    code = await server.code(client_id, pkce.challenge, **OF_VSCODE)
    tokens = (await server.exchange(client_id, code, pkce.verifier, **OF_VSCODE)).json()

    switch_off(server)

    assert (await server.authorize(client_id, proof().challenge, **OF_VSCODE)).status_code == 400
    assert await server.is_good(tokens["access_token"]), "its sessions go on, as the command says"


async def test_a_code_is_no_longer_good_once_its_client_is_switched_off(server: AuthorizationServer) -> None:
    client_id, pkce = await let_in(server), proof()
    code = await server.code(client_id, pkce.challenge, **OF_VSCODE)

    switch_off(server)

    refused = await server.exchange(client_id, code, pkce.verifier, **OF_VSCODE)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


async def test_a_client_that_is_off_is_let_in_by_the_next_window_for_it(server: AuthorizationServer) -> None:
    await let_in(server)
    switch_off(server)

    client_id, pkce = await let_in(server), proof()

    code = await server.code(client_id, pkce.challenge, **OF_VSCODE)
    assert (await server.exchange(client_id, code, pkce.verifier, **OF_VSCODE)).status_code == 200
    assert [client.let_in_as for client in list_clients(server.store)] == ["vscode"]


async def test_the_other_clients_of_a_window_are_let_in_still(server: AuthorizationServer) -> None:
    names = [known_client("vscode"), known_client("cursor")]
    open_window(server.store, minutes=10, now=server.clock(), known=names)

    switch_off(server)

    cursor = "cursor://anysphere.cursor-mcp/oauth/callback"
    assert (await server.register(redirect_uris=[cursor])).status_code == 201


# Revoking one


async def test_a_request_of_a_document_that_is_revoked_meanwhile_brings_it_not_back(
    documented: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = host.put_client("/client.json")
    documented.open_window()
    await documented.tokens(client_id)
    asked = await documented.authorize(client_id, proof().challenge)
    revoke_client(documented.store, client_id)

    with pytest.raises(CommandRefused, match="connect it anew"):
        documented.consent(asked.headers["location"])
    assert list_clients(documented.store) == []
