"""Clients that cannot be installed here, by the recorded shape of what they send, through the whole server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest

from opencode_gateway.oauth.known_clients import known_client
from opencode_gateway.oauth.redirects import switch
from support.gateway.authorization import AuthorizationServer, answer_of, proof
from support.gateway.recorded_clients import CHATGPT, CHATGPT_BEFORE, CLIENTS, VSCODE

if TYPE_CHECKING:
    from pathlib import Path

    from support.gateway.recorded_clients import Recorded

OFF_BY_DEFAULT = [client for client in CLIENTS if client.name != "chatgpt"]


def of(client: Recorded) -> str:
    return f"{client.name} {client.asks.partition(':')[0]}"


async def goes_the_whole_way(server: AuthorizationServer, client: Recorded) -> None:
    server.open_window()
    registered = await server.http.post("/register", json=client.registration)
    assert registered.status_code == 201, registered.text
    body, pkce = registered.json(), proof()
    assert len(body["redirect_uris"]) == len(client.registration["redirect_uris"])

    asked = await server.authorize(body["client_id"], pkce.challenge, redirect_uri=client.asks)
    assert asked.status_code == 302, asked.text
    pending = server.provider.requests.read(answer_of(asked.headers["location"])["request"])
    assert pending is not None
    sent_to = server.provider.issue_code(pending, "ann", ["observe"])
    assert sent_to.startswith(f"{client.asks}?")
    code = dict(parse_qsl(urlsplit(sent_to).query))["code"]
    given = await server.exchange(body["client_id"], code, pkce.verifier, redirect_uri=client.asks)

    assert given.status_code == 200, given.text
    assert await server.is_good(given.json()["access_token"])


@pytest.mark.parametrize("client", CLIENTS, ids=of)
async def test_a_known_client_gets_in_once_gateway_json_names_it(tmp_path: Path, client: Recorded) -> None:
    server = AuthorizationServer(tmp_path, clients={"known": [client.name]})

    await goes_the_whole_way(server, client)

    await server.close()


@pytest.mark.parametrize("client", CLIENTS, ids=of)
async def test_a_known_client_gets_in_once_a_command_switched_it_on(
    server: AuthorizationServer, client: Recorded
) -> None:
    switch(server.store, known_client(client.name), enabled=True, now=server.clock())

    await goes_the_whole_way(server, client)


@pytest.mark.parametrize("client", [CHATGPT, CHATGPT_BEFORE], ids=of)
async def test_chatgpt_gets_in_by_both_its_ways_without_a_setting(
    server: AuthorizationServer, client: Recorded
) -> None:
    await goes_the_whole_way(server, client)


@pytest.mark.parametrize("client", OFF_BY_DEFAULT, ids=of)
async def test_a_client_that_is_off_is_told_how_to_switch_it_on(
    server: AuthorizationServer, client: Recorded
) -> None:
    server.open_window()

    refused = await server.http.post("/register", json=client.registration)

    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_redirect_uri")
    told = refused.json()["error_description"]
    assert f"sudo opencode-gateway clients enable {client.name}`" in told
    assert f"clients allow --for {client.name}`" in told


@pytest.mark.parametrize("client", CLIENTS, ids=of)
async def test_without_a_window_a_client_is_told_which_one_lets_it_in(
    server: AuthorizationServer, client: Recorded
) -> None:
    refused = await server.http.post("/register", json=client.registration)

    told = refused.json()["error_description"]
    # No command holds a host that the client chose: anybody may come as LibreChat.
    named = "" if client.name == "chatgpt" or "@" in client.name else f" --for {client.name}"
    assert told.endswith(f"runs `sudo opencode-gateway clients allow{named}`, then connect again"), told


async def test_of_several_addresses_those_are_kept_that_are_allowed(tmp_path: Path) -> None:
    server = AuthorizationServer(tmp_path, clients={"redirect_uris": ["https://vscode.dev/redirect"]})
    server.open_window()

    registered = await server.http.post("/register", json=VSCODE.registration)

    assert registered.status_code == 201
    assert registered.json()["redirect_uris"] == ["https://vscode.dev/redirect"]
    await server.close()
