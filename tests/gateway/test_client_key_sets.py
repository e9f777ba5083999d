"""The keys of clients that sign: from where they are fetched, within which bounds, and which are none."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.oauth import credentials, documents
from opencode_gateway.oauth.documents import ClientDocuments, DocumentRefused
from support.gateway.authorization import PUBLIC_URL, AuthorizationServer
from support.gateway.client_keys import ClientKey, signed
from support.gateway.client_requests import ask, form_of, is_refused
from support.gateway.fake_documents import DocumentHost, document_host
from support.gateway.recorded_documents import CHATGPT, moved

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TOKEN = f"{PUBLIC_URL}/token"
KEY = ClientKey()
OTHER_KEY = ClientKey("key-2")
EC_KEY = ClientKey("key-3", "ES256")


class Now:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    """The clock of what is kept of documents and keys."""
    return Now()


@pytest.fixture
async def server(tmp_path: Path, host: DocumentHost, now: Now) -> AsyncIterator[AuthorizationServer]:
    """An authorization server that takes documents of the chat service's host, and callbacks as by default."""
    directory = tmp_path / "data"
    directory.mkdir()
    server = AuthorizationServer(directory, documents=ClientDocuments([host.netloc], clock=now))
    yield server
    await server.close()


async def remote_client(server: AuthorizationServer, host: DocumentHost) -> str:
    server.open_window()
    answer = await server.register(token_endpoint_auth_method="private_key_jwt", jwks_uri=host.url("/jwks.json"))
    assert answer.json()["token_endpoint_auth_method"] == "private_key_jwt"
    assert answer.json()["jwks_uri"] == host.url("/jwks.json")
    return str(answer.json()["client_id"])


async def test_keys_are_fetched_once_and_a_new_one_is_found(
    server: AuthorizationServer, host: DocumentHost, now: Now
) -> None:
    client_id = await remote_client(server, host)
    host.put("/jwks.json", KEY.key_set())
    for _ in range(3):
        given = await ask(server, await form_of(server, client_id) | signed(KEY.assertion(client_id, TOKEN)))
        assert given.status_code == 200, given.text
    assert host.asked == ["/jwks.json"]

    host.put("/jwks.json", OTHER_KEY.key_set())
    early = await ask(server, await form_of(server, client_id) | signed(OTHER_KEY.assertion(client_id, TOKEN)))
    assert is_refused(early)
    assert host.asked == ["/jwks.json"], "a stranger must not make us ask each time"
    now.seconds += documents.NEW_KEY_SECONDS
    given = await ask(server, await form_of(server, client_id) | signed(OTHER_KEY.assertion(client_id, TOKEN)))

    assert given.status_code == 200, given.text
    old = await ask(server, await form_of(server, client_id) | signed(KEY.assertion(client_id, TOKEN)))
    assert is_refused(old)


async def test_many_who_ask_at_once_for_a_key_that_is_in_no_set_make_us_ask_as_often_as_there_are_places(
    host: DocumentHost, now: Now
) -> None:
    fetcher = ClientDocuments([host.netloc], clock=now)
    uri = host.put("/jwks.json", KEY.key_set())
    await fetcher.keys(uri, hosts=(), key_id="key-1")
    now.seconds += documents.NEW_KEY_SECONDS
    host.asked.clear()

    await asyncio.gather(*(fetcher.keys(uri, hosts=(), key_id="of nobody") for _ in range(40)))

    assert 1 <= len(host.asked) <= documents.MAX_FETCHES


async def test_what_is_kept_as_a_key_set_is_no_document_and_the_other_way_round(host: DocumentHost) -> None:
    fetcher = ClientDocuments([host.netloc])
    keys = host.put("/jwks.json", KEY.key_set())
    await fetcher.keys(keys, hosts=(), key_id=None)
    with pytest.raises(DocumentRefused):
        await fetcher.fetch(keys)

    document = host.put_client("/client.json")
    await fetcher.fetch(document)
    with pytest.raises(DocumentRefused):
        await fetcher.keys(document, hosts=(), key_id=None)


HUGE = json.dumps({"keys": [], "padding": "x" * documents.MAX_DOCUMENT_BYTES}).encode()
BAD_SETS: dict[str, bytes] = {
    "no JSON": b"{",
    "no set": b"[]",
    "no keys": b'{"keys": []}',
    "no list": b'{"keys": {}}',
    "keys that are none": b'{"keys": [1, "x", null]}',
    "a private key": json.dumps({"keys": [KEY.private]}).encode(),
    "a secret": b'{"keys": [{"kty": "oct", "k": "eA"}]}',
    "half a key": b'{"keys": [{"kty": "RSA", "kid": "key-1"}]}',
    "a key of numbers": b'{"keys": [{"kty": "RSA", "kid": "key-1", "n": 5, "e": 3}]}',
    "a curve of nobody": b'{"keys": [{"kty": "EC", "kid": "key-1", "crv": "P-1", "x": "AA", "y": "AA"}]}',
    "too many": json.dumps({"keys": [KEY.public] * (credentials.MAX_KEYS + 1)}).encode(),
    "deep": b"[" * 60_000,
}


@pytest.mark.parametrize("body", BAD_SETS.values(), ids=BAD_SETS)
async def test_a_key_set_is_refused_that_holds(server: AuthorizationServer, host: DocumentHost, body: bytes) -> None:
    client_id = await remote_client(server, host)
    host.put("/jwks.json", body)

    for key in (KEY, EC_KEY):
        answer = await ask(
            server, await form_of(server, client_id) | signed(key.assertion(client_id, TOKEN, kid="key-1"))
        )
        assert is_refused(answer)


@pytest.mark.parametrize("how", ["huge", "gone", "redirected", "slow"])
async def test_keys_that_cannot_be_had_within_the_bounds_let_nobody_in(
    server: AuthorizationServer, host: DocumentHost, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    client_id = await remote_client(server, host)
    host.put("/there.json", KEY.key_set())
    if how == "huge":
        host.put("/jwks.json", HUGE)
    elif how == "redirected":
        host.put("/jwks.json", b"", f"Location: {host.url('/there.json')}", status="302 Found")
    elif how == "slow":
        host.responses["/jwks.json"] = None
        monkeypatch.setattr(server.provider.clients._documents, "_seconds", 0.2)
    form = await form_of(server, client_id)

    answer = await ask(server, form | signed(KEY.assertion(client_id, TOKEN)))

    # It is not called a stranger for what its host does.
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert host.asked == ["/jwks.json"]
    host.put("/jwks.json", KEY.key_set())
    assert (await ask(server, form | signed(KEY.assertion(client_id, TOKEN)))).status_code == 200


async def test_keys_at_an_address_that_is_not_public_are_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with document_host(tmp_path, monkeypatch, public=False) as host:
        (tmp_path / "data").mkdir()
        server = AuthorizationServer(tmp_path / "data", clients={"client_id_hosts": [host.netloc]})
        client_id = await remote_client(server, host)
        host.put("/jwks.json", KEY.key_set())

        answer = await ask(server, await form_of(server, client_id) | signed(KEY.assertion(client_id, TOKEN)))

        assert is_refused(answer)
        assert host.asked == []
        await server.close()


async def test_a_host_that_is_no_longer_listed_vouches_for_nobody(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = await remote_client(server, host)
    host.put("/jwks.json", KEY.key_set())
    form = await form_of(server, client_id)
    server.store.close()
    later = AuthorizationServer(server.configuration.data_dir, clients={"client_id_hosts": []})

    answer = await ask(later, form | signed(KEY.assertion(client_id, TOKEN)))

    assert is_refused(answer, "none are fetched")
    assert host.asked == []
    await later.close()


async def test_nobody_is_asked_for_the_keys_of_a_client_that_is_not_known(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = host.put("/client.json", moved(CHATGPT, f"https://{host.netloc}"))
    server.open_window()
    form = {"grant_type": "refresh_token", "refresh_token": "x"}

    assert is_refused(await ask(server, form | signed(KEY.assertion(client_id, TOKEN))), "not registered")

    assert host.asked == []


async def test_nobody_is_asked_for_the_keys_of_a_client_that_nobody_has_granted_anything_to(
    server: AuthorizationServer, host: DocumentHost
) -> None:
    client_id = await remote_client(server, host)
    host.put("/jwks.json", KEY.key_set())
    server.clock.advance(601)
    form = {"grant_type": "refresh_token", "refresh_token": "x"}

    refused = await ask(server, form | signed(KEY.assertion(client_id, TOKEN)))

    assert is_refused(refused, "nobody has granted this client anything")
    assert host.asked == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "names no key"),
        ({"jwks": {"keys": []}}, "key set that is not valid"),
        ({"jwks": {"keys": [{"kty": "oct", "k": "eA"}]}}, "public keys alone"),
        ({"jwks_uri": "https://keys.example/jwks.json"}, "not its document's"),
        ({"jwks_uri": "http://{host}/jwks.json"}, "not its document's"),
        ({"jwks_uri": "https://127.0.0.1/jwks.json"}, "not its document's"),
        ({"jwks_uri": "https://{host}/jwks.json?x=1"}, "not its document's"),
    ],
)
async def test_a_client_that_must_sign_is_refused_at_once_where_its_keys_cannot_be_had(
    host: DocumentHost, said: dict[str, object], words: str
) -> None:
    placed = {
        name: value.format(host=host.netloc) if isinstance(value, str) else value for name, value in said.items()
    }
    client_id = host.put_client("/client.json", token_endpoint_auth_method="private_key_jwt", **placed)

    with pytest.raises(DocumentRefused, match=words):
        await ClientDocuments([host.netloc]).fetch(client_id)

    assert host.asked == ["/client.json"]


async def test_a_document_is_asked_for_again_after_five_minutes_whatever_its_host_says(
    host: DocumentHost, now: Now
) -> None:
    fetcher = ClientDocuments([host.netloc], clock=now)
    client_id = host.put_client("/client.json", client_name="Before")
    host.responses["/client.json"] = (host.responses["/client.json"] or b"").replace(
        b"Connection: close", b"Connection: close\r\nCache-Control: max-age=86400"
    )
    await fetcher.fetch(client_id)
    host.put_client("/client.json", client_name="After")

    now.seconds += documents.KEPT_SECONDS - 1
    assert (await fetcher.fetch(client_id)).client_name == "Before"
    now.seconds += 1
    assert (await fetcher.fetch(client_id)).client_name == "After"
