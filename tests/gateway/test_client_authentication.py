"""What a client proves itself with at `/token` and `/revoke`: a secret, or nothing, as it agreed to when it came."""

from __future__ import annotations

import base64
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.oauth import credentials
from opencode_gateway.store import _MIGRATIONS, FILE_NAME, hashed
from support.gateway.authorization import CALLBACK, PUBLIC_URL, AuthorizationServer
from support.gateway.client_keys import ClientKey, signed
from support.gateway.client_requests import ask, basic, form_of, is_refused

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = f"{PUBLIC_URL}/token"
KEY = ClientKey()


# Secrets


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
@pytest.mark.parametrize("sent", ["form", "header", "header, and named in the form"])
async def test_a_client_with_a_secret_may_send_it_either_way(
    server: AuthorizationServer, method: str, sent: str
) -> None:
    server.open_window()
    answer = (await server.register(token_endpoint_auth_method=method)).json()
    client_id, secret = answer["client_id"], answer["client_secret"]
    assert (answer["token_endpoint_auth_method"], answer["client_secret_expires_at"]) == (method, 0)
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    named = {"client_id": client_id} if sent != "header" else {}
    who = named | ({"client_secret": secret} if sent == "form" else {})
    headers = {} if sent == "form" else basic(client_id, secret)

    given = await ask(server, await form_of(server, client_id) | who, headers)

    assert given.status_code == 200, given.text
    form = {"grant_type": "refresh_token", "refresh_token": given.json()["refresh_token"]}
    refreshed = await ask(server, form | who, headers)
    assert refreshed.status_code == 200, refreshed.text
    token = refreshed.json()["access_token"]
    revoked = await server.http.post("/revoke", data={"token": token} | who, headers=headers)
    assert revoked.status_code == 200
    assert not await server.is_good(token)
    files = b"".join(path.read_bytes() for path in server.configuration.data_dir.iterdir())
    assert secret.encode() not in files


async def test_a_client_with_a_secret_gets_nothing_without_it(server: AuthorizationServer) -> None:
    server.open_window()
    one, other = [(await server.register(token_endpoint_auth_method="client_secret_post")).json() for _ in range(2)]
    client_id, secret = one["client_id"], one["client_secret"]
    form = await form_of(server, client_id) | {"client_id": client_id}

    assert is_refused(await ask(server, form), "does not send it")
    assert is_refused(await ask(server, form | {"client_secret": ""}), "does not send it")
    for wrong in ("x", secret[:-1], secret + "x", secret.upper(), other["client_secret"]):
        assert is_refused(await ask(server, form | {"client_secret": wrong}), "is wrong")
        answer = await ask(server, form, basic(client_id, wrong))
        assert is_refused(answer, "is wrong")
        assert answer.headers["www-authenticate"].startswith("Basic ")
    assert is_refused(
        await ask(server, form | {"client_secret": secret}, basic(client_id, secret)), "more than one way"
    )
    assert is_refused(await ask(server, form, basic(other["client_id"], other["client_secret"])), "not alike")
    assert is_refused(await ask(server, form | signed(KEY.assertion(client_id, TOKEN))), "registered no key")
    given = await ask(server, form | {"client_secret": secret})
    assert given.status_code == 200, "what was refused has used nothing up"
    token = given.json()["access_token"]
    assert is_refused(await server.refresh(client_id, given.json()["refresh_token"]))
    assert is_refused(await server.http.post("/revoke", data={"client_id": client_id, "token": token}))
    assert await server.is_good(token)


@pytest.mark.parametrize("header", ["Basic", "Basic !", "Basic eA==", "Basic //86eA==", "basic é"])
async def test_a_header_that_is_no_basic_authentication_is_refused(server: AuthorizationServer, header: str) -> None:
    client_id = await server.registered(token_endpoint_auth_method="client_secret_basic")
    form = await form_of(server, client_id)

    answer = await server.http.post("/token", data=form, headers={b"Authorization": header.encode()})

    assert is_refused(answer)
    assert answer.headers["www-authenticate"].startswith("Basic ")


# Public clients


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"token_endpoint_auth_method": None},
        {"token_endpoint_auth_method": ""},
        {"token_endpoint_auth_method": "none"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://keys.example/jwks.json"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://127.0.0.1/jwks.json"},
        {"token_endpoint_auth_method": "client_secret_post", "token_endpoint_auth_methods_supported": ["none"]},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt", "none"], "jwks": KEY.key_set()},
    ],
)
async def test_a_client_that_can_do_without_is_public_and_is_told_so(
    server: AuthorizationServer, asked: dict[str, Any]
) -> None:
    server.open_window()

    answer = (await server.register(**asked)).json()

    assert answer["token_endpoint_auth_method"] == "none"
    assert not {"client_secret", "client_secret_expires_at", "jwks", "jwks_uri"} & set(answer)
    await server.tokens(answer["client_id"])


async def test_a_public_client_that_suddenly_sends_a_secret_is_refused(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    form = await form_of(server, client_id) | {"client_id": client_id}

    assert is_refused(await ask(server, form | {"client_secret": "x"}), "sends a secret")
    answer = await ask(server, form, basic(client_id, "x"))
    assert is_refused(answer, "sends a secret")
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert (await ask(server, form | {"client_secret": ""})).status_code == 200, "an empty parameter is none"


async def test_a_public_client_may_name_itself_in_the_header(server: AuthorizationServer) -> None:
    client_id = await server.registered()

    assert (await ask(server, await form_of(server, client_id), basic(client_id, ""))).status_code == 200


async def test_who_does_not_say_who_they_are_is_told_so(server: AuthorizationServer) -> None:
    assert is_refused(await ask(server, {"grant_type": "refresh_token", "refresh_token": "x"}), "who it is")
    assert is_refused(await ask(server, {"client_id": "nobody"}), "not registered")


# Registrations, the metadata, and what was there before


@pytest.mark.parametrize(
    "jwks",
    [
        {"keys": []},
        {"keys": "x"},
        [],
        "x",
        1,
        {"keys": [KEY.private]},
        {"keys": [{"kty": "oct", "k": "eA"}]},
        {"keys": [KEY.public | {"use": "enc"}]},
        {"keys": [KEY.public | {"padding": "x" * credentials.MAX_KEY_SET_BYTES}]},
        {"keys": [KEY.public] * (credentials.MAX_KEYS + 1)},
    ],
)
async def test_a_client_cannot_register_keys_that_are_none(server: AuthorizationServer, jwks: object) -> None:
    server.open_window()

    answer = await server.register(token_endpoint_auth_method="private_key_jwt", jwks=jwks)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    assert "jwks" in answer.json()["error_description"]


async def test_metadata_names_every_way_and_none_before_all(server: AuthorizationServer) -> None:
    metadata = (await server.http.get("/.well-known/oauth-authorization-server")).json()

    for endpoint in ("token", "revocation"):
        methods = metadata[f"{endpoint}_endpoint_auth_methods_supported"]
        assert methods == ["none", "private_key_jwt", "client_secret_post", "client_secret_basic"]
        algorithms = metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert {"RS256", "ES256", "PS256"} <= set(algorithms)
        assert not {"none", "HS256"} & set(algorithms)
    assert metadata["client_id_metadata_document_supported"] is True, "with `none`, for Claude"


async def test_who_was_known_before_clients_had_secrets_goes_on_as_a_public_client(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as old:
        old.executescript(_MIGRATIONS[0])
        old.execute("PRAGMA user_version = 1")
        client = (
            "INSERT INTO clients (id, name, document, redirect_uris, created_at, granted_at)"
            " VALUES (?, 'x', ?, ?, 1, 1)"
        )
        session = (
            "INSERT INTO sessions (id, login, client_id, capabilities, resource, created_at, refreshed_at)"
            " VALUES (?1, 'ann', ?1, 'observe', ?2, 1, 1)"
        )
        token = (
            "INSERT INTO tokens (hash, session_id, kind, capabilities, created_at, expires_at)"
            " VALUES (?, ?, 'refresh', 'observe', 1, 1e11)"
        )
        for client_id, document in (("registered", 0), ("https://claude.ai/client.json", 1)):
            old.execute(client, (client_id, document, CALLBACK))
            old.execute(session, (client_id, f"{PUBLIC_URL}/mcp"))
            old.execute(token, (hashed(f"ogr_{client_id}"), client_id))
    old.close()

    server = AuthorizationServer(tmp_path)

    for client_id in ("registered", "https://claude.ai/client.json"):
        refreshed = await server.refresh(client_id, f"ogr_{client_id}")
        assert refreshed.status_code == 200, refreshed.text
    await server.close()
