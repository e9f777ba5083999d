"""A client registers, a person consents, tokens are given: what is in order, request by request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.gateway.authorization import CALLBACK, PUBLIC_URL, AuthorizationServer, answer_of, proof

if TYPE_CHECKING:
    from pathlib import Path


async def test_metadata_of_the_resource_leads_to_that_of_its_authorization_server(
    server: AuthorizationServer,
) -> None:
    resource = (await server.http.get("/.well-known/oauth-protected-resource/mcp")).json()

    assert resource["resource"] == f"{PUBLIC_URL}/mcp"
    assert resource["authorization_servers"] == [PUBLIC_URL]
    assert resource["scopes_supported"] == ["observe", "approve", "drive"]


async def test_metadata_says_what_chat_clients_look_for(server: AuthorizationServer) -> None:
    metadata = (await server.http.get("/.well-known/oauth-authorization-server")).json()

    assert metadata["issuer"] == PUBLIC_URL  # and no slash after it: it is compared as text
    assert metadata["client_id_metadata_document_supported"] is True
    assert "none" in metadata["token_endpoint_auth_methods_supported"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert metadata["authorization_endpoint"] == f"{PUBLIC_URL}/authorize"
    assert metadata["token_endpoint"] == f"{PUBLIC_URL}/token"
    assert metadata["registration_endpoint"] == f"{PUBLIC_URL}/register"
    assert metadata["revocation_endpoint"] == f"{PUBLIC_URL}/revoke"


async def test_the_whole_way_from_registration_to_a_token_that_is_good(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered(client_name="Claude")

    asked = await server.authorize(client_id, pkce.challenge, scope="observe drive")
    assert asked.status_code == 302
    login_page = asked.headers["location"]
    assert login_page.startswith(f"{PUBLIC_URL}/login?request=")
    answer = server.consent(login_page)
    assert answer["state"] == "st&te"
    assert answer["iss"] == PUBLIC_URL

    given = await server.exchange(client_id, answer["code"], pkce.verifier)
    assert given.status_code == 200, given.text
    assert given.headers["cache-control"] == "no-store"
    tokens = given.json()
    assert tokens["scope"] == "observe drive"
    assert tokens["expires_in"] == 24 * 3600

    token = await server.provider.verify_token(tokens["access_token"])
    assert token is not None
    assert token.scopes == ["observe", "drive"]
    assert (token.subject, token.client_id, token.resource) == ("ann", client_id, f"{PUBLIC_URL}/mcp")
    assert token.claims["login"] == "ann"
    assert token.claims["client_name"] == "Claude"
    assert token.claims["kind"] == "password"


async def test_the_pages_are_told_who_asks_for_what(server: AuthorizationServer) -> None:
    client_id = await server.registered(client_name="Claude")
    asked = await server.authorize(client_id, proof().challenge, scope="drive observe")

    pending = server.provider.requests.read(answer_of(asked.headers["location"])["request"])

    assert pending is not None
    assert pending.client_name == "Claude"
    assert pending.redirect_host == "claude.ai"
    assert pending.capabilities == ("observe", "drive")
    assert pending.document is False


async def test_a_person_who_says_no_sends_the_client_an_error_with_iss(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    asked = await server.authorize(client_id, proof().challenge)
    pending = server.provider.requests.read(answer_of(asked.headers["location"])["request"])
    assert pending is not None

    location = server.provider.refuse(pending)

    assert location.startswith(f"{CALLBACK}?")
    answer = answer_of(location)
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "st&te", PUBLIC_URL)
    assert "code" not in answer


async def test_a_person_grants_part_of_what_is_asked_for(server: AuthorizationServer) -> None:
    pkce = proof()
    client_id = await server.registered()
    asked = await server.authorize(client_id, pkce.challenge)
    answer = server.consent(asked.headers["location"], capabilities=["observe"])

    tokens = (await server.exchange(client_id, answer["code"], pkce.verifier)).json()

    assert tokens["scope"] == "observe"
    token = await server.provider.verify_token(tokens["access_token"])
    assert token is not None
    assert token.scopes == ["observe"]


async def test_a_client_may_leave_out_scope_and_resource_and_its_only_redirect_uri(
    server: AuthorizationServer,
) -> None:
    pkce = proof()
    client_id = await server.registered()
    asked = await server.authorize(client_id, pkce.challenge, resource=None, redirect_uri=None)
    code = server.consent(asked.headers["location"])["code"]

    form = {"grant_type": "authorization_code", "client_id": client_id, "code": code, "code_verifier": pkce.verifier}
    given = await server.http.post("/token", data=form)

    assert given.status_code == 200, given.text
    assert given.json()["scope"] == "observe approve drive"
    token = await server.provider.verify_token(given.json()["access_token"])
    assert token is not None
    assert token.resource == f"{PUBLIC_URL}/mcp"


@pytest.mark.parametrize("spelling", ["https://RELAY.example.org/mcp", "https://relay.example.org:443/mcp/"])
async def test_a_resource_is_compared_as_a_url(server: AuthorizationServer, spelling: str) -> None:
    client_id = await server.registered()

    asked = await server.authorize(client_id, proof().challenge, resource=spelling)

    assert asked.headers["location"].startswith(f"{PUBLIC_URL}/login")


async def test_scopes_that_are_not_ours_are_passed_over(server: AuthorizationServer) -> None:
    client_id = await server.registered(scope="openid offline_access")
    asked = await server.authorize(client_id, proof().challenge, scope="openid observe")

    pending = server.provider.requests.read(answer_of(asked.headers["location"])["request"])

    assert pending is not None
    assert pending.capabilities == ("observe",)


async def test_a_refresh_token_gives_a_new_pair_and_the_old_access_token_stays(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)

    given = await server.refresh(client_id, first["refresh_token"])

    assert given.status_code == 200, given.text
    second = given.json()
    assert second["refresh_token"] != first["refresh_token"]
    assert await server.is_good(second["access_token"])
    assert await server.is_good(first["access_token"])


async def test_two_tabs_that_refresh_at_once_both_go_on(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    one = (await server.refresh(client_id, first["refresh_token"])).json()
    server.clock.advance(59)

    other = await server.refresh(client_id, first["refresh_token"])

    assert other.status_code == 200, other.text
    for tokens in (one, other.json()):
        assert await server.is_good(tokens["access_token"])
        assert (await server.refresh(client_id, tokens["refresh_token"])).status_code == 200


async def test_a_session_lives_on_for_as_long_as_it_is_refreshed(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)

    for _ in range(5):
        server.clock.advance(80 * 24 * 3600)
        given = await server.refresh(client_id, tokens["refresh_token"])
        assert given.status_code == 200, given.text
        tokens = given.json()

    assert await server.is_good(tokens["access_token"])


async def test_a_refreshed_access_token_can_have_less_and_the_refresh_token_keeps_all(
    server: AuthorizationServer,
) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)

    less = (await server.refresh(client_id, first["refresh_token"], scope="observe")).json()
    again = (await server.refresh(client_id, less["refresh_token"])).json()

    assert less["scope"] == "observe"
    token = await server.provider.verify_token(less["access_token"])
    assert token is not None
    assert token.scopes == ["observe"]
    assert again["scope"] == "observe approve drive"


async def test_tokens_outlive_the_service(tmp_path: Path, server: AuthorizationServer) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)
    await server.close()

    other = AuthorizationServer(tmp_path)

    assert await other.is_good(tokens["access_token"])
    assert (await other.refresh(client_id, tokens["refresh_token"])).status_code == 200
    await other.close()


async def test_no_code_and_no_token_can_be_read_from_the_database(
    server: AuthorizationServer, tmp_path: Path
) -> None:
    pkce = proof()
    client_id = await server.registered()
    code = await server.code(client_id, pkce.challenge)
    tokens = (await server.exchange(client_id, code, pkce.verifier)).json()

    files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())

    assert client_id.encode() in files
    for secret in (code, tokens["access_token"], tokens["refresh_token"]):
        assert secret.encode() not in files
        assert len(secret) > 40
