"""Which clients may register, when, how many, and what is kept of what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth import clients
from opencode_gateway.oauth.clients import clean_name
from opencode_gateway.oauth.enrolment import close_window, list_clients, open_window, revoke_client
from support.gateway.authorization import CALLBACK, AuthorizationServer, proof

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "http://127.0.0.1:49152/callback"


# The window


async def test_no_client_registers_outside_the_window(server: AuthorizationServer) -> None:
    await server.refuses_to_register("opencode-gateway clients allow")

    assert list_clients(server.store) == []


async def test_the_window_closes_itself(server: AuthorizationServer) -> None:
    server.open_window(minutes=10)

    server.clock.advance(600)
    assert (await server.register()).status_code == 201
    server.clock.advance(1)
    await server.refuses_to_register("clients allow")


async def test_the_owner_closes_the_window(server: AuthorizationServer) -> None:
    server.open_window()
    close_window(server.store, now=server.clock())

    await server.refuses_to_register("clients allow")


async def test_a_client_that_registered_needs_no_window_to_log_in(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    server.clock.advance(601)

    await server.tokens(client_id)


async def test_a_clock_that_is_set_back_does_not_leave_the_window_open(server: AuthorizationServer) -> None:
    server.open_window(minutes=1)
    server.clock.advance(-3600)

    await server.refuses_to_register("clients allow")


@pytest.mark.parametrize("minutes", [0, -1, 61])
def test_a_window_is_short(server: AuthorizationServer, minutes: int) -> None:
    with pytest.raises(CommandRefused, match="1 to 60"):
        open_window(server.store, minutes=minutes, now=server.clock())


async def test_where_enrolment_is_open_no_window_is_needed(tmp_path: Path) -> None:
    server = AuthorizationServer(tmp_path, clients={"enrolment": "open"})

    assert (await server.register()).status_code == 201

    await server.close()


async def test_a_client_that_nobody_registered_is_refused(server: AuthorizationServer) -> None:
    server.open_window()

    asked = await server.authorize("nobody", proof().challenge)
    given = await server.exchange("nobody", "code", "verifier")

    assert asked.status_code == 400
    assert "not registered" in asked.json()["error_description"]
    assert (given.status_code, given.json()["error"]) == (401, "invalid_client")


async def test_a_revoked_client_is_forgotten_with_its_sessions(server: AuthorizationServer) -> None:
    client_id, other = await server.registered(), await server.registered()
    tokens, others = await server.tokens(client_id), await server.tokens(other)

    assert revoke_client(server.store, client_id) == 1

    assert not await server.is_good(tokens["access_token"])
    assert (await server.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_client"
    assert await server.is_good(others["access_token"])
    with pytest.raises(CommandRefused, match="there is no client"):
        revoke_client(server.store, client_id)


# What is registered


async def test_only_what_is_needed_of_the_metadata_is_kept_and_answered(server: AuthorizationServer) -> None:
    server.open_window()

    answer = await server.register(
        client_name="Chat",
        scope="email",
        contacts=["x" * 1000],
        logo_uri="https://chat.example/logo",
        jwks={"keys": ["k" * 1000]},
        software_id="s" * 1000,
    )

    body = answer.json()
    assert set(body) == {
        "client_id",
        "client_id_issued_at",
        "client_name",
        "redirect_uris",
        "scope",
        "token_endpoint_auth_method",
        "grant_types",
        "response_types",
        "application_type",
    }
    assert body["scope"] == "observe approve drive"
    assert list_clients(server.store) == []
    await server.tokens(body["client_id"])
    (kept,) = list_clients(server.store)
    assert (kept.name, kept.redirect_uris, kept.document) == ("Chat", (CALLBACK,), False)


@pytest.mark.parametrize(
    "uris",
    [
        ["https://evil.example/callback"],
        [f"{CALLBACK}/"],
        [f"{CALLBACK}?x=1"],
        [LOOPBACK],
        ["com.example.app:/callback"],
        [CALLBACK] * (clients.MAX_REDIRECT_URIS + 1),
    ],
)
async def test_a_client_cannot_register_other_redirect_uris(server: AuthorizationServer, uris: list[str]) -> None:
    server.open_window()

    answer = await server.register(redirect_uris=uris)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri")
    assert list_clients(server.store) == []


async def test_of_a_mixed_list_those_are_kept_that_are_allowed_and_the_answer_says_which(
    server: AuthorizationServer,
) -> None:
    server.open_window()

    answer = await server.register(redirect_uris=["https://evil.example/cb", CALLBACK, LOOPBACK])

    assert (answer.status_code, answer.json()["redirect_uris"]) == (201, [CALLBACK])
    await server.tokens(answer.json()["client_id"])
    (kept,) = list_clients(server.store)
    assert kept.redirect_uris == (CALLBACK,)
    evil = await server.authorize(kept.id, proof().challenge, redirect_uri="https://evil.example/cb")
    assert evil.status_code == 400
    await server.tokens(kept.id)


@pytest.mark.parametrize("uris", [[], None, "x", [1], [""]])
async def test_a_client_must_register_redirect_uris(server: AuthorizationServer, uris: object) -> None:
    server.open_window()

    answer = await server.register(redirect_uris=uris)

    assert answer.status_code == 400
    assert list_clients(server.store) == []


# Loopback redirects


async def test_programs_of_ones_own_machine_may_connect_where_this_is_switched_on(tmp_path: Path) -> None:
    server = AuthorizationServer(tmp_path, clients={"loopback_redirects": True})
    pkce = proof()
    client_id = await server.registered(redirect_uris=[LOOPBACK])
    another_port = "http://127.0.0.1:50000/callback"

    asked = await server.authorize(client_id, pkce.challenge, redirect_uri=another_port)
    assert asked.status_code == 302, asked.text
    code = server.consent(asked.headers["location"])["code"]
    given = await server.exchange(client_id, code, pkce.verifier, redirect_uri=another_port)

    assert given.status_code == 200, given.text
    for other in ("http://127.0.0.1:50000/other", "http://localhost:50000/callback", CALLBACK):
        assert (await server.authorize(client_id, pkce.challenge, redirect_uri=other)).status_code == 400
    await server.close()


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1:80@evil.example/callback",
        "http://127.0.0.2/callback",
        "http://0.0.0.0/callback",
        "https://127.0.0.1/callback",
        "http://localhost.evil.example:1/callback",
        "http://127.0.0.1/callback#fragment",
        "http://127.0.0.1/call back",
    ],
)
async def test_what_only_looks_like_loopback_is_refused(tmp_path: Path, uri: str) -> None:
    server = AuthorizationServer(tmp_path, clients={"loopback_redirects": True})
    client_id = await server.registered(redirect_uris=[LOOPBACK])

    assert (await server.authorize(client_id, proof().challenge, redirect_uri=uri)).status_code == 400
    if "call back" not in uri:  # which a client cannot register as it is written
        assert (await server.register(redirect_uris=[uri])).status_code == 400
    await server.close()


async def test_switching_loopback_off_counts_for_clients_that_are_there(tmp_path: Path) -> None:
    server = AuthorizationServer(tmp_path, clients={"loopback_redirects": True})
    client_id = await server.registered(redirect_uris=[LOOPBACK])
    await server.close()

    stricter = AuthorizationServer(tmp_path)

    for named in (LOOPBACK, None):
        assert (await stricter.authorize(client_id, proof().challenge, redirect_uri=named)).status_code == 400
    await stricter.close()


# Names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Claude", "Claude"),
        ("  Chat\n\tof   mine ", "Chat of mine"),
        ("a\u202eb\u2066c\u200bd\u200fe", "abcde"),
        ("\x00\x1b[31mred\x7f", "[31mred"),
        ("Größe 漢字 🙂", "Größe 漢字 🙂"),
        ("line\u2028break\u2029here", "line break here"),
        ("x" * 1000, "x" * 80),
        ("\u202e\u200b", "a client without a name"),
        ("", "a client without a name"),
        (None, "a client without a name"),
    ],
)
def test_a_name_is_shown_as_one_line_of_text_that_steers_nothing(name: str | None, shown: str) -> None:
    assert clean_name(name) == shown


async def test_the_name_is_cleaned_before_it_is_kept(server: AuthorizationServer) -> None:
    await server.tokens(await server.registered(client_name="Cl\u202eaude\r\nevil"))

    (client,) = list_clients(server.store)
    assert client.name == "Claude evil"


async def test_registering_is_told_the_audit_log(server: AuthorizationServer) -> None:
    client_id = await server.registered(client_name="Chat")

    (event,) = server.events
    assert (event.event, event.outcome, event.client_id, event.client_name) == (
        "client-registered",
        "ok",
        client_id,
        "Chat",
    )


async def test_the_end_of_a_session_before_its_time_is_told_the_audit_log(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)
    refreshed = (await server.refresh(client_id, tokens["refresh_token"])).json()
    assert await server.is_good(refreshed["access_token"])
    server.clock.advance(61)

    await server.refresh(client_id, tokens["refresh_token"])

    event = server.events[-1]
    assert (event.event, event.outcome, event.login) == ("session-ended", "refresh-token-replayed", "ann")
