"""What the authorization server refuses, and what it answers then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.errors import Refused
from opencode_gateway.oauth import enrolment
from support.authorization import CALLBACK, PUBLIC_URL, AuthorizationServer, answer_of, proof

if TYPE_CHECKING:
    import httpx

OTHER_CALLBACK = "https://claude.com/api/mcp/auth_callback"


def assert_client_is_told(answer: httpx.Response, error: str) -> None:
    """The error went to the client's own address, with `iss` and `state`."""
    assert answer.status_code == 302, answer.text
    location = answer.headers["location"]
    assert location.startswith(f"{CALLBACK}?")
    told = answer_of(location)
    assert (told["error"], told["iss"], told["state"]) == (error, PUBLIC_URL, "st&te")


def assert_only_the_person_is_told(answer: httpx.Response, words: str) -> None:
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert words in answer.json()["error_description"]


# Redirects


@pytest.mark.parametrize(
    "foreign",
    [
        "https://evil.example/callback",
        f"{CALLBACK}/",
        f"{CALLBACK}?next=https://evil.example",
        f"{CALLBACK}#fragment",
        "https://claude.ai/api/mcp/../mcp/auth_callback",
        "https://CLAUDE.ai/api/mcp/auth_callback",
        "https://claude.ai:443/api/mcp/auth_callback",
        "https://claude.ai@evil.example/api/mcp/auth_callback",
        "http://claude.ai/api/mcp/auth_callback",
        "http://127.0.0.1:1234/callback",
        "javascript:alert(1)",
        "",
    ],
)
async def test_a_code_is_sent_to_no_other_address(server: AuthorizationServer, foreign: str) -> None:
    client_id = await server.registered()

    asked = await server.authorize(client_id, proof().challenge, redirect_uri=foreign)

    assert_only_the_person_is_told(asked, "redirect_uri")


async def test_a_redirect_uri_of_another_client_is_refused(server: AuthorizationServer) -> None:
    client_id = await server.registered(redirect_uris=[OTHER_CALLBACK])

    asked = await server.authorize(client_id, proof().challenge, redirect_uri=CALLBACK)

    assert_only_the_person_is_told(asked, "redirect_uri")


async def test_a_code_is_no_good_with_another_redirect_uri(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered(redirect_uris=[CALLBACK, OTHER_CALLBACK])
    code = await server.code(client_id, pkce.challenge)

    given = await server.exchange(client_id, code, pkce.verifier, redirect_uri=OTHER_CALLBACK)

    assert given.status_code == 400


async def test_a_client_of_several_redirect_uris_must_name_one(server: AuthorizationServer) -> None:
    client_id = await server.registered(redirect_uris=[CALLBACK, OTHER_CALLBACK])

    asked = await server.authorize(client_id, proof().challenge, redirect_uri=None)

    assert_only_the_person_is_told(asked, "redirect_uri")


# PKCE


@pytest.mark.parametrize("method", ["plain", "s256", "", None])
async def test_only_s256_is_taken_and_no_method_means_plain(server: AuthorizationServer, method: str | None) -> None:
    client_id = await server.registered()

    asked = await server.authorize(client_id, proof().challenge, code_challenge_method=method)

    assert_client_is_told(asked, "invalid_request")


@pytest.mark.parametrize("challenge", [None, "", "short", "=" * 43, "A" * 44])
async def test_a_challenge_must_be_there_and_be_one(server: AuthorizationServer, challenge: str | None) -> None:
    client_id = await server.registered()

    asked = await server.authorize(client_id, "", code_challenge=challenge)

    assert_client_is_told(asked, "invalid_request")


async def test_a_code_is_no_good_without_its_verifier(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    code = await server.code(client_id, pkce.challenge)

    for verifier in (proof().verifier, pkce.challenge):
        given = await server.exchange(client_id, code, verifier)
        assert (given.status_code, given.json()["error"]) == (400, "invalid_grant")


# The resource


async def test_a_code_for_another_resource_is_refused(server: AuthorizationServer) -> None:
    client_id = await server.registered()

    asked = await server.authorize(client_id, proof().challenge, resource="https://other.example/mcp")

    assert_client_is_told(asked, "invalid_target")


async def test_every_resource_of_several_must_be_ours(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    asked = await server.http.get(
        "/authorize",
        params=[
            ("client_id", client_id),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("code_challenge", proof().challenge),
            ("code_challenge_method", "S256"),
            ("state", "st&te"),
            ("resource", "https://other.example/mcp"),
            ("resource", f"{PUBLIC_URL}/mcp"),
        ],
    )

    assert_client_is_told(asked, "invalid_target")


async def test_a_token_for_another_resource_is_refused(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    code = await server.code(client_id, pkce.challenge)

    given = await server.exchange(client_id, code, pkce.verifier, resource="https://other.example/mcp")

    assert (given.status_code, given.json()["error"]) == (400, "invalid_target")
    tokens = (await server.exchange(client_id, code, pkce.verifier)).json()
    refreshed = await server.refresh(client_id, tokens["refresh_token"], resource="https://other.example/mcp")
    assert (refreshed.status_code, refreshed.json()["error"]) == (400, "invalid_target")


async def test_a_token_is_no_good_where_the_gateway_has_another_address(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    tokens = await server.tokens(client_id)
    code = await server.code(client_id, pkce.challenge)
    server.store.close()

    moved = AuthorizationServer(server.configuration.data_dir, public_url="https://moved.example.org")

    assert not await moved.is_good(tokens["access_token"])
    assert (await moved.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await moved.exchange(client_id, code, pkce.verifier)).json()["error"] == "invalid_grant"
    await moved.close()


# Codes


async def test_a_code_that_is_used_twice_ends_what_it_gave(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    code = await server.code(client_id, pkce.challenge)
    tokens = (await server.exchange(client_id, code, pkce.verifier)).json()

    again = await server.exchange(client_id, code, pkce.verifier)

    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert not await server.is_good(tokens["access_token"])
    assert (await server.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_code_that_is_used_again_hours_later_ends_what_it_gave(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    code = await server.code(client_id, pkce.challenge)
    tokens = (await server.exchange(client_id, code, pkce.verifier)).json()
    server.clock.advance(23 * 3600)
    await server.code(client_id, pkce.challenge)  # at which what is over is forgotten

    assert (await server.exchange(client_id, code, pkce.verifier)).json()["error"] == "invalid_grant"

    assert (await server.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_code_is_good_for_a_minute(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    late = await server.code(client_id, pkce.challenge)
    server.clock.advance(1)
    in_time = await server.code(client_id, pkce.challenge)

    server.clock.advance(59)

    assert (await server.exchange(client_id, late, pkce.verifier)).json()["error"] == "invalid_grant"
    assert (await server.exchange(client_id, in_time, pkce.verifier)).status_code == 200


async def test_a_code_is_no_good_to_another_client(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id, other = await server.registered(), await server.registered()
    code = await server.code(client_id, pkce.challenge)

    assert (await server.exchange(other, code, pkce.verifier)).json()["error"] == "invalid_grant"
    tokens = (await server.exchange(client_id, code, pkce.verifier)).json()
    # Nor can it end with a code what that gave to another.
    assert (await server.exchange(other, code, pkce.verifier)).json()["error"] == "invalid_grant"
    assert await server.is_good(tokens["access_token"])


async def test_of_many_who_use_one_code_at_once_none_keeps_a_token(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    code = await server.code(client_id, pkce.challenge)

    answers = await asyncio.gather(*(server.exchange(client_id, code, pkce.verifier) for _ in range(10)))

    given = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(given) == 1
    assert not await server.is_good(given[0]["access_token"])


# Refresh tokens


async def test_a_refresh_token_that_is_replayed_after_the_grace_ends_the_session(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    second = (await server.refresh(client_id, first["refresh_token"])).json()
    server.clock.advance(61)

    replayed = await server.refresh(client_id, first["refresh_token"])

    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")
    assert not await server.is_good(first["access_token"])
    assert not await server.is_good(second["access_token"])
    assert (await server.refresh(client_id, second["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_use_within_the_grace_does_not_prolong_it(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    await server.refresh(client_id, first["refresh_token"])
    server.clock.advance(40)
    await server.refresh(client_id, first["refresh_token"])
    server.clock.advance(40)

    assert (await server.refresh(client_id, first["refresh_token"])).json()["error"] == "invalid_grant"


async def test_another_session_of_the_same_client_is_left_alone(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first, other = await server.tokens(client_id), await server.tokens(client_id)
    await server.refresh(client_id, first["refresh_token"])
    server.clock.advance(61)

    await server.refresh(client_id, first["refresh_token"])

    assert await server.is_good(other["access_token"])


async def test_a_refresh_token_is_no_good_to_another_client(server: AuthorizationServer) -> None:
    client_id, other = await server.registered(), await server.registered()
    tokens = await server.tokens(client_id)

    assert (await server.refresh(other, tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert await server.is_good(tokens["access_token"])
    # Nor can it end a session by one that was replaced.
    tokens = {**(await server.refresh(client_id, tokens["refresh_token"])).json(), "old": tokens["refresh_token"]}
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
            return server.provider._grants._refreshable(db, tokens[kind], client_id) is not None

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

    with pytest.raises(Refused, match="nothing can be granted"):
        server.consent(asked.headers["location"])


async def test_nothing_is_granted_to_a_client_that_was_revoked_meanwhile(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    asked = await server.authorize(client_id, proof().challenge)
    enrolment.revoke_client(server.store, client_id)

    with pytest.raises(Refused, match="no longer registered"):
        server.consent(asked.headers["location"])
