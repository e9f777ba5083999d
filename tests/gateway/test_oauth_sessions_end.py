"""How sessions end: replayed, expired and revoked tokens, and people who may do less."""

from __future__ import annotations

from typing import Any

import pytest

from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth import enrolment
from support.gateway.authorization import AuthorizationServer, proof


async def used(server: AuthorizationServer, client_id: str, refresh_token: str) -> dict[str, Any]:
    """Refresh, and make a call with what comes of it."""
    tokens: dict[str, Any] = (await server.refresh(client_id, refresh_token)).json()
    assert await server.is_good(tokens["access_token"])
    return tokens


async def test_a_refresh_token_that_is_replayed_after_the_grace_ends_the_session(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    second = await used(server, client_id, first["refresh_token"])
    server.clock.advance(61)

    replayed = await server.refresh(client_id, first["refresh_token"])

    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")
    assert not await server.is_good(first["access_token"])
    assert not await server.is_good(second["access_token"])
    assert (await server.refresh(client_id, second["refresh_token"])).json()["error"] == "invalid_grant"


async def test_another_session_of_the_same_client_is_left_alone(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first, other = await server.tokens(client_id), await server.tokens(client_id)
    await used(server, client_id, first["refresh_token"])
    server.clock.advance(61)

    await server.refresh(client_id, first["refresh_token"])

    assert not await server.is_good(first["access_token"])
    assert await server.is_good(other["access_token"])


async def test_a_refresh_token_is_no_good_to_another_client(server: AuthorizationServer) -> None:
    client_id, other = await server.registered(), await server.registered()
    tokens = await server.tokens(client_id)

    assert (await server.refresh(other, tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert await server.is_good(tokens["access_token"])
    # Nor can it end a session by one that was replaced.
    tokens = {**(await used(server, client_id, tokens["refresh_token"])), "old": tokens["refresh_token"]}
    server.clock.advance(61)
    assert (await server.refresh(other, tokens["old"])).json()["error"] == "invalid_grant"
    assert await server.is_good(tokens["access_token"])


async def test_a_refreshed_token_cannot_have_more_than_was_granted(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    code = await server.code(client_id, pkce.challenge, scope="observe")
    tokens = (await server.exchange(client_id, code, pkce.verifier)).json()

    assert (await server.refresh(client_id, tokens["refresh_token"], scope="drive")).json()[
        "error"
    ] == "invalid_scope"


@pytest.mark.parametrize(("kind", "days"), [("access_token", 1), ("refresh_token", 90)])
async def test_a_token_ends_when_its_time_is_over(server: AuthorizationServer, kind: str, days: int) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)

    async def is_good() -> bool:
        if kind == "access_token":
            return await server.is_good(tokens[kind])
        with server.store.transaction() as db:  # so that trying it does not use it up
            return server.provider._grants._found(db, tokens[kind], client_id) is not None

    server.clock.advance(days * 24 * 3600 - 1)
    assert await is_good()
    server.clock.advance(1)
    assert not await is_good()


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_one_kind_of_token_is_not_taken_for_another(server: AuthorizationServer, kind: str) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)

    if kind == "access_token":
        assert (await server.refresh(client_id, tokens[kind])).json()["error"] == "invalid_grant"
    else:
        assert not await server.is_good(tokens[kind])


# Revocation


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_revoking_either_token_ends_the_session(server: AuthorizationServer, kind: str) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)

    answer = await server.http.post("/revoke", data={"client_id": client_id, "token": tokens[kind]})

    assert answer.status_code == 200
    assert not await server.is_good(tokens["access_token"])
    assert (await server.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_nobody_revokes_the_token_of_another_client(server: AuthorizationServer) -> None:
    client_id, other = await server.registered(), await server.registered()
    tokens = await server.tokens(client_id)

    answer = await server.http.post("/revoke", data={"client_id": other, "token": tokens["access_token"]})

    assert answer.status_code == 200  # RFC 7009: nothing is said about it
    assert await server.is_good(tokens["access_token"])


async def test_revoking_needs_a_client_and_a_token(server: AuthorizationServer) -> None:
    client_id = await server.registered()

    unknown = await server.http.post("/revoke", data={"client_id": "nobody", "token": "x"})
    missing = await server.http.post("/revoke", data={"client_id": client_id})

    assert (unknown.status_code, unknown.json()["error"]) == (401, "invalid_client")
    assert (missing.status_code, missing.json()["error"]) == (400, "invalid_request")


# People


async def test_tokens_of_a_person_who_is_disabled_or_removed_stop_at_once(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    tokens = await server.tokens(client_id)
    code = await server.code(client_id, pkce.challenge)

    server.users.set_disabled("ann", disabled=True)
    assert (await server.exchange(client_id, code, pkce.verifier)).json()["error"] == "invalid_grant"
    assert not await server.is_good(tokens["access_token"])
    assert (await server.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"
    server.users.set_disabled("ann", disabled=False)
    assert await server.is_good(tokens["access_token"])
    server.users.remove("ann")
    assert not await server.is_good(tokens["access_token"])


async def test_a_capability_that_a_person_loses_is_lost_to_their_tokens(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)

    server.users.set_capabilities("ann", ["observe"])

    token = await server.provider.verify_token(tokens["access_token"])
    assert token is not None
    assert token.scopes == ["observe"]
    assert (await server.refresh(client_id, tokens["refresh_token"])).json()["scope"] == "observe"


async def test_nobody_grants_what_they_do_not_have(server: AuthorizationServer) -> None:
    server.users.set_capabilities("ann", ["observe"])
    client_id = await server.registered()
    asked = await server.authorize(client_id, proof().challenge, scope="drive")

    with pytest.raises(CommandRefused, match="nothing can be granted"):
        server.consent(asked.headers["location"])


async def test_nothing_is_granted_to_a_client_that_was_revoked_meanwhile(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    await server.tokens(client_id)
    asked = await server.authorize(client_id, proof().challenge)
    enrolment.revoke_client(server.store, client_id)

    with pytest.raises(CommandRefused, match="no longer registered"):
        server.consent(asked.headers["location"])
