"""Clients that a document at their own address describes, from the window to their sessions' end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.oauth.enrolment import close_window, list_clients, revoke_client
from opencode_gateway.oauth.places import FetchPlaces
from opencode_gateway.oauth.sessions import revoke_sessions
from support.gateway.authorization import CALLBACK, AuthorizationServer, answer_of, proof
from support.gateway.fake_documents import NAME, DocumentHost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def server(tmp_path: Path, host: DocumentHost) -> AsyncIterator[AuthorizationServer]:
    """An authorization server that takes documents of the chat service's host."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    server = AuthorizationServer(data_dir, clients={"client_id_hosts": [host.netloc]})
    yield server
    await server.close()


async def test_a_client_with_a_document_goes_the_whole_way(server: AuthorizationServer, host: DocumentHost) -> None:
    client_id = host.put_client("/oauth/client.json")
    server.open_window()

    tokens = await server.tokens(client_id)

    token = await server.provider.verify_token(tokens["access_token"])
    assert token is not None
    assert token.client_id == client_id
    assert token.claims["client_name"] == "Chat"
    assert f"Host: {NAME}" in host.headers[0]


async def test_the_pages_are_told_that_a_document_speaks_for_the_client(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    server.open_window()
    asked = await server.authorize(host.put_client("/client.json"), proof().challenge)

    pending = server.provider.requests.read(answer_of(asked.headers["location"])["request"])

    assert pending is not None
    assert pending.document is True


async def test_each_authorization_of_a_stranger_needs_the_window_and_nothing_is_fetched_outside_it(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = host.put_client("/client.json")
    before = await server.authorize(client_id, proof().challenge)
    server.open_window()
    await server.tokens(client_id)
    asked = list(host.asked)
    close_window(server.store, now=server.clock())

    after = await server.authorize(client_id, proof().challenge)

    assert before.status_code == after.status_code == 400
    assert "clients allow" in after.json()["error_description"]
    assert asked == host.asked == ["/client.json"]


async def test_who_came_in_time_is_not_turned_away_when_the_window_closes_itself_while_they_log_in(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    pkce, client_id = proof(), host.put_client("/client.json")
    server.open_window(minutes=1)
    asked = await server.authorize(client_id, pkce.challenge)
    server.clock.advance(61)

    code = server.consent(asked.headers["location"])["code"]

    assert (await server.exchange(client_id, code, pkce.verifier)).status_code == 200


async def test_a_session_goes_on_outside_the_window_without_another_fetch(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = host.put_client("/client.json", token_endpoint_auth_method="none")
    server.open_window()
    tokens = await server.tokens(client_id)
    close_window(server.store, now=server.clock())
    fetched = len(host.asked)

    refreshed = await server.refresh(client_id, tokens["refresh_token"])

    assert refreshed.status_code == 200, refreshed.text
    assert len(host.asked) == fetched


async def test_a_token_request_makes_nobody_fetch_a_document(server: AuthorizationServer, host: DocumentHost) -> None:
    client_id = host.put_client("/client.json")
    server.open_window()

    given = await server.exchange(client_id, "x", "y")
    revoked = await server.http.post("/revoke", data={"client_id": client_id, "token": "x"})

    assert (given.status_code, revoked.status_code) == (401, 401)
    assert host.asked == []


async def test_a_revoked_client_that_connects_anew_does_not_bring_its_old_sessions_back(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = host.put_client("/client.json")
    server.open_window()
    before = await server.tokens(client_id)

    assert revoke_client(server.store, client_id) == 1
    server.clock.advance(60)
    await server.tokens(client_id)

    assert not await server.is_good(before["access_token"])
    assert (await server.refresh(client_id, before["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_client_that_nobody_may_renew_is_not_remembered_without_sessions(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = host.put_client("/client.json")
    other = host.put_client("/other.json")
    server.open_window()
    await server.tokens(client_id)
    revoke_sessions(server.store, login="ann")
    server.clock.advance(25 * 3600)  # for as long a used code is remembered
    server.open_window()

    await server.tokens(other)
    await server.tokens(other)

    assert [client.id for client in list_clients(server.store)] == [other]


async def test_a_client_is_not_forgotten_between_consent_and_its_first_token(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    pkce, client_id = proof(), host.put_client("/client.json")
    server.open_window()
    code = await server.code(client_id, pkce.challenge)

    await server.tokens(host.put_client("/other.json"))  # at which clients without sessions are forgotten

    assert (await server.exchange(client_id, code, pkce.verifier)).status_code == 200


async def test_redirect_uris_of_a_document_count_only_if_they_are_allowed_here(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    server.open_window()
    elsewhere = "https://evil.example/callback"
    both = host.put_client("/both.json", redirect_uris=[elsewhere, CALLBACK])
    foreign = host.put_client("/foreign.json", redirect_uris=[elsewhere, "http://localhost:*/callback"])

    assert (await server.authorize(both, proof().challenge)).status_code == 302
    assert (await server.authorize(both, proof().challenge, redirect_uri=elsewhere)).status_code == 400
    refused = await server.authorize(foreign, proof().challenge)
    assert "no redirect_uri" in refused.json()["error_description"]


async def test_a_redirect_uri_that_the_document_does_not_name_is_refused(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    server.open_window()
    client_id = host.put_client("/client.json", redirect_uris=["https://claude.com/api/mcp/auth_callback"])

    assert (await server.authorize(client_id, proof().challenge)).status_code == 400


async def test_who_asks_is_told_apart_by_where_the_request_comes_from(
    server: AuthorizationServer, host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[str] = []
    really: Any = FetchPlaces.one

    def one(self: FetchPlaces, source: str) -> object:
        sources.append(source)
        return really(self, source)

    monkeypatch.setattr(FetchPlaces, "one", one)
    server.open_window()

    assert (await server.authorize(host.put_client("/client.json"), proof().challenge)).status_code == 302

    assert sources == ["127.0.0.1"]
