"""Requests for authorization and codes that the authorization server refuses, and what it answers then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from support.gateway.authorization import CALLBACK, PUBLIC_URL, AuthorizationServer, answer_of, proof

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
