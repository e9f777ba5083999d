"""Clients that sign: what is taken of their assertions at `/token` and `/revoke`, and what is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from mcp.client.auth.extensions.client_credentials import SignedJWTParameters

from opencode_gateway.oauth.enrolment import close_window
from support.gateway.authorization import PUBLIC_URL, AuthorizationServer
from support.gateway.client_keys import ASSERTION_TYPE, ClientKey, signed
from support.gateway.client_requests import ask, basic, form_of, is_refused
from support.gateway.recorded_documents import CHATGPT, CHATGPT_BEFORE, moved

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gateway.fake_documents import DocumentHost

TOKEN = f"{PUBLIC_URL}/token"
KEY = ClientKey()
OTHER_KEY = ClientKey("key-2")
EC_KEY = ClientKey("key-3", "ES256")


@pytest.fixture
async def server(tmp_path: Path, host: DocumentHost) -> AsyncIterator[AuthorizationServer]:
    """An authorization server that takes documents of the chat service's host, and callbacks as by default."""
    directory = tmp_path / "data"
    directory.mkdir()
    server = AuthorizationServer(directory, clients={"client_id_hosts": [host.netloc]})
    yield server
    await server.close()


# ChatGPT, whose document offers both


async def chatgpt(server: AuthorizationServer, host: DocumentHost, document: dict[str, Any] = CHATGPT) -> str:
    served = moved(document, f"https://{host.netloc}")
    host.put("/oauth/jwks.json", KEY.key_set())
    server.open_window()
    return host.put(served["client_id"].removeprefix(f"https://{host.netloc}"), served)


async def test_chatgpt_gets_in_as_a_public_client(server: AuthorizationServer, host: DocumentHost) -> None:
    client_id = await chatgpt(server, host)
    form = await form_of(server, client_id, CHATGPT["redirect_uris"][0])

    given = await ask(server, form | {"client_id": client_id})

    assert given.status_code == 200, given.text
    refreshed = await server.refresh(client_id, given.json()["refresh_token"])
    assert refreshed.status_code == 200
    assert "/oauth/jwks.json" not in host.asked


@pytest.mark.parametrize("document", [CHATGPT, CHATGPT_BEFORE], ids=["now", "before"])
@pytest.mark.parametrize("named", [True, False])
async def test_chatgpt_gets_in_by_its_assertion_whether_or_not_the_form_names_it(
    server: AuthorizationServer, host: DocumentHost, document: dict[str, Any], *, named: bool
) -> None:
    client_id = await chatgpt(server, host, document)
    form = await form_of(server, client_id, CHATGPT["redirect_uris"][0])
    who = {"client_id": client_id} if named else {}
    close_window(server.store, now=server.clock())

    given = await ask(server, form | who | signed(KEY.assertion(client_id, TOKEN)))

    assert given.status_code == 200, given.text
    assert host.asked == ["/oauth/IbUR3zxyNQ16/client.json", "/oauth/jwks.json"]
    form = {"grant_type": "refresh_token", "refresh_token": given.json()["refresh_token"]}
    refreshed = await ask(server, form | who | signed(KEY.assertion(client_id, TOKEN)))
    assert refreshed.status_code == 200, refreshed.text
    revoked = await server.http.post(
        "/revoke", data={"token": refreshed.json()["access_token"]} | who | signed(KEY.assertion(client_id, TOKEN))
    )
    assert revoked.status_code == 200
    assert not await server.is_good(refreshed.json()["access_token"])


async def test_an_assertion_that_is_wrong_is_refused_though_none_would_do(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = await chatgpt(server, host)
    form = await form_of(server, client_id, CHATGPT["redirect_uris"][0])

    answer = await ask(server, form | {"client_id": client_id} | signed(OTHER_KEY.assertion(client_id, TOKEN)))

    assert is_refused(answer, "not signed with its key")


async def test_a_client_whose_host_is_no_longer_listed_goes_on_signing_as_others_go_on(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = await chatgpt(server, host, CHATGPT_BEFORE)
    form = await form_of(server, client_id, CHATGPT["redirect_uris"][0])
    server.store.close()
    later = AuthorizationServer(server.configuration.data_dir)

    given = await ask(later, form | signed(KEY.assertion(client_id, TOKEN)))

    assert given.status_code == 200, given.text
    later.open_window()
    assert (await later.authorize(client_id, "x" * 43)).status_code == 400, "but is let in by nobody again"
    await later.close()


# Clients that must sign


async def test_a_client_that_must_sign_gets_nothing_unsigned(server: AuthorizationServer, host: DocumentHost) -> None:
    client_id = await chatgpt(server, host, CHATGPT_BEFORE)
    form = await form_of(server, client_id, CHATGPT["redirect_uris"][0])

    assert is_refused(await ask(server, form | {"client_id": client_id}), "this one is not signed")
    assert is_refused(await ask(server, form | {"client_id": client_id, "client_secret": "x"}), "sends a secret")
    given = await ask(server, form | signed(KEY.assertion(client_id, TOKEN)))
    assert given.status_code == 200, "what was refused has used nothing up"
    tokens = given.json()
    assert is_refused(await server.refresh(client_id, tokens["refresh_token"]))
    revoked = await server.http.post("/revoke", data={"client_id": client_id, "token": tokens["access_token"]})
    assert is_refused(revoked)
    assert await server.is_good(tokens["access_token"])


@pytest.mark.parametrize("key", [KEY, EC_KEY], ids=["RSA", "EC"])
@pytest.mark.parametrize("place", ["/token", "", "/", "/revoke"])
async def test_a_registered_client_signs_for_the_server_or_its_endpoint(
    server: AuthorizationServer, key: ClientKey, place: str
) -> None:
    server.open_window()
    answer = (await server.register(token_endpoint_auth_method="private_key_jwt", jwks=key.key_set())).json()
    assert answer["token_endpoint_auth_method"] == "private_key_jwt"
    assert answer["jwks"] == key.key_set()
    assert "client_secret" not in answer
    form = await form_of(server, answer["client_id"])

    given = await ask(server, form | signed(key.assertion(answer["client_id"], PUBLIC_URL + place)))

    assert given.status_code == 200, given.text


async def test_the_official_sdk_signs_what_is_taken_here(server: AuthorizationServer) -> None:
    server.open_window()
    client_id = (await server.register(token_endpoint_auth_method="private_key_jwt", jwks=KEY.key_set())).json()[
        "client_id"
    ]
    sign = SignedJWTParameters(
        issuer=client_id, subject=client_id, signing_key=KEY.private_pem
    ).create_assertion_provider()
    issuer = (await server.http.get("/.well-known/oauth-authorization-server")).json()["issuer"]

    given = await ask(server, await form_of(server, client_id) | signed(await sign(issuer)))

    assert given.status_code == 200, given.text


async def signing_client(server: AuthorizationServer, *keys: ClientKey) -> str:
    server.open_window()
    jwks = {"keys": [key.public for key in keys or (KEY,)]}
    answer = await server.register(token_endpoint_auth_method="private_key_jwt", jwks=jwks)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["client_id"])


PAST = int(time.time()) - 3600
WRONG: dict[str, dict[str, Any]] = {
    "is over": {"exp": PAST},
    "never ends": {"exp": None},
    "ends in a day": {"exp": int(time.time()) + 86400},
    "ends in a day and says no begin": {"exp": int(time.time()) + 86400, "iat": None},
    "ends at no number": {"exp": float("nan")},
    "never ends at all": {"exp": float("inf")},
    "ends in words": {"exp": "tomorrow"},
    "begins in an hour": {"nbf": int(time.time()) + 3600},
    "was made in an hour": {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 3660},
    "has no id": {"jti": None},
    "has an empty id": {"jti": ""},
    "has a list for an id": {"jti": ["x"]},
    "has an endless id": {"jti": "x" * 300},
    "is for nobody": {"aud": None},
    "is for another server": {"aud": "https://other.example/token"},
    "is for the resource": {"aud": f"{PUBLIC_URL}/mcp"},
    "is for us and another": {"aud": [TOKEN, "https://other.example"]},
    "is for nothing": {"aud": []},
    "is of another": {"iss": "https://other.example"},
    "is of nobody": {"iss": None},
    "has an unknown key": {"kid": "another"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_an_assertion_is_refused_that(server: AuthorizationServer, wrong: dict[str, Any]) -> None:
    client_id = await signing_client(server, KEY, OTHER_KEY)
    form = await form_of(server, client_id)
    audience = wrong.get("aud", TOKEN) if "aud" in wrong else TOKEN

    answer = await ask(server, form | {"client_id": client_id} | signed(KEY.assertion(client_id, audience, **wrong)))

    assert is_refused(answer)
    good = await ask(server, form | {"client_id": client_id} | signed(KEY.assertion(client_id, TOKEN)))
    assert good.status_code == 200, "what was refused has used nothing up"


async def test_an_assertion_is_good_once(server: AuthorizationServer) -> None:
    client_id = await signing_client(server)
    assertion = signed(KEY.assertion(client_id, TOKEN))
    first = await ask(server, await form_of(server, client_id) | assertion)
    assert first.status_code == 200

    again = await ask(server, await form_of(server, client_id) | assertion)
    elsewhere = await server.http.post("/revoke", data={"token": first.json()["access_token"]} | assertion)

    assert is_refused(again, "used before")
    assert is_refused(elsewhere)
    assert await server.is_good(first.json()["access_token"])


def unsigned(client_id: str) -> str:
    _, claims, _ = KEY.assertion(client_id, TOKEN).split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"none","kid":"key-1"}').rstrip(b"=").decode()
    return f"{head}.{claims}."


def signed_with_the_public_key(client_id: str) -> str:
    """HS256, with what everybody can read for a secret: a verifier that believes the header takes it."""
    _, claims, _ = KEY.assertion(client_id, TOKEN).split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"key-1"}').rstrip(b"=").decode()
    signature = hmac.digest(KEY.public_pem, f"{head}.{claims}".encode(), hashlib.sha256)
    return f"{head}.{claims}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def altered(client_id: str) -> str:
    head, _, signature = KEY.assertion(client_id, TOKEN).split(".")
    return f"{head}.{KEY.assertion(client_id, TOKEN).split('.')[1]}.{signature}"


FORGED = {
    "none": unsigned,
    "public key as a secret": signed_with_the_public_key,
    "other claims": altered,
    "another's key": lambda client_id: OTHER_KEY.assertion(client_id, TOKEN),
    "another's key by our name": lambda client_id: OTHER_KEY.assertion(client_id, TOKEN, kid="key-1"),
    "another kind of key": lambda client_id: EC_KEY.assertion(client_id, TOKEN, kid="key-1"),
    "critical": lambda client_id: jwt.PyJWS().encode(
        json.dumps(jwt.decode(KEY.assertion(client_id, TOKEN), options={"verify_signature": False})).encode(),
        KEY.private_pem,
        "RS256",
        headers={"crit": ["x"], "x": 1, "kid": "key-1"},
    ),
    "no assertion": lambda _: "x",
    "three parts of nothing": lambda _: "..",
    "a list": lambda _: "W10.W10.W10",
    "deep": lambda _: "W1tb" * 300 + ".W1tb.x",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_a_forged_assertion_is_refused(server: AuthorizationServer, forge: Any) -> None:
    client_id = await signing_client(server)
    form = await form_of(server, client_id)

    assert is_refused(await ask(server, form | {"client_id": client_id} | signed(forge(client_id))))

    assert (await ask(server, form | signed(KEY.assertion(client_id, TOKEN)))).status_code == 200


async def test_a_client_cannot_sign_for_another(server: AuthorizationServer) -> None:
    ours, theirs = await signing_client(server, KEY), await signing_client(server, OTHER_KEY)
    await form_of(server, theirs)  # which has been granted something, too
    form = await form_of(server, ours)

    for who, assertion in (
        (ours, OTHER_KEY.assertion(theirs, TOKEN)),
        (theirs, KEY.assertion(ours, TOKEN)),
        (None, OTHER_KEY.assertion(ours, TOKEN)),
        (None, OTHER_KEY.assertion(theirs, TOKEN, iss=ours)),
    ):
        assert is_refused(await ask(server, form | ({"client_id": who} if who else {}) | signed(assertion)))
    # One that proves to be itself has no use for another's code.
    answer = await ask(server, form | signed(OTHER_KEY.assertion(theirs, TOKEN)))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_an_assertion_is_no_other_proof(server: AuthorizationServer) -> None:
    client_id = await signing_client(server)
    form = await form_of(server, client_id) | {"client_id": client_id}
    assertion = KEY.assertion(client_id, TOKEN)

    assert is_refused(await ask(server, form | {"client_assertion": assertion}), "client_assertion_type")
    assert is_refused(await ask(server, form | {"client_assertion_type": ASSERTION_TYPE}))
    other = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
    assert is_refused(await ask(server, form | signed(assertion) | {"client_assertion_type": other}))
    assert is_refused(await ask(server, form | signed(assertion) | {"client_secret": "x"}), "more than one way")
    assert is_refused(await ask(server, form | signed(assertion), basic(client_id, "x")), "more than one way")
    public = await server.registered()
    answer = await ask(server, await form_of(server, public) | signed(KEY.assertion(public, TOKEN)))
    assert is_refused(answer, "registered no key")
