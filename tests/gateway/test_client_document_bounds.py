"""What is fetched of a client's document, within which bounds: asked of `ClientDocuments`, which knows no window."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.oauth import documents
from opencode_gateway.oauth.documents import (
    MAX_CACHED,
    MAX_DOCUMENT_BYTES,
    MAX_FETCHES,
    MAX_OF_ONE,
    ClientDocuments,
    DocumentRefused,
)
from support.gateway.fake_documents import DocumentHost, document_host

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fetcher(host: DocumentHost) -> ClientDocuments:
    return ClientDocuments([host.netloc])


async def refused(fetcher: ClientDocuments, client_id: str) -> str:
    with pytest.raises(DocumentRefused) as caught:
        await fetcher.fetch(client_id)
    return str(caught.value)


async def test_a_document_on_loopback_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with document_host(tmp_path, monkeypatch, public=False) as host:
        client_id = host.put_client("/client.json")

        assert "cannot be fetched" in await refused(ClientDocuments([host.netloc]), client_id)

        assert host.asked == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "192.168.1.1", "::1", "fd00::1", "::ffff:127.0.0.1"],
)
async def test_an_address_that_is_not_public_is_never_connected_to(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    async def resolve(hostname: str, port: int = 443) -> list[str]:
        return ["93.184.215.14", address]  # one good address does not make the other good

    monkeypatch.setattr("fastmcp.server.auth.ssrf.resolve_hostname", resolve)
    connected: list[str] = []
    monkeypatch.setattr("fastmcp.server.auth.ssrf._build_fetch_targets", connected.append)

    told = await refused(ClientDocuments(["chat.example"]), "https://chat.example/client.json")

    assert "cannot be fetched" in told
    assert address not in told
    assert connected == []


async def test_a_redirect_is_not_followed(fetcher: ClientDocuments, host: DocumentHost) -> None:
    host.put_client("/there.json")
    client_id = host.put("/client.json", b"", f"Location: {host.url('/there.json')}", status="302 Found")

    assert "cannot be fetched" in await refused(fetcher, client_id)

    assert host.asked == ["/client.json"]


@pytest.mark.parametrize(
    "client_id",
    [
        "http://{host}/client.json",
        "HTTPS://{host}/client.json",
        "https://{host}",
        "https://{host}/",
        "https://{host}/client.json?x=1",
        "https://{host}/client.json#x",
        "https://user@{host}/client.json",
        "https://{host}.evil.example/client.json",
        "https://evil.example/client.json",
        "https://127.0.0.1/client.json",
        "https://{host}/a/../client.json",
        "https://{host}/a/%2E%2e/client.json",
        "https://{host}/client json",
        "https://{host}/é.json",
        "https://{host}:99999/client.json",
        "https://[::1/client.json",
        "https://{host}/" + "x" * 512,
    ],
)
async def test_an_id_that_is_not_plain_or_of_another_host_is_not_fetched(
    fetcher: ClientDocuments, host: DocumentHost, client_id: str
) -> None:
    await refused(fetcher, client_id.format(host=host.netloc))

    assert host.asked == []


async def test_a_document_about_another_client_is_refused(fetcher: ClientDocuments, host: DocumentHost) -> None:
    for other in (host.url("/other.json"), "https://claude.ai/client.json", host.url("/client.json/")):
        assert "another client" in await refused(fetcher, host.put_client("/client.json", client_id=other))


async def test_a_document_has_64_kib_at_most(fetcher: ClientDocuments, host: DocumentHost) -> None:
    largest = host.put_client("/largest.json", padding="")
    missing = MAX_DOCUMENT_BYTES - len((host.responses["/largest.json"] or b"").split(b"\r\n\r\n", 1)[1])

    host.put_client("/largest.json", padding="x" * missing)
    assert str((await fetcher.fetch(largest)).client_id) == largest
    larger = host.put_client("/larger.json", padding="x" * (missing + 2))
    assert "cannot be fetched" in await refused(fetcher, larger)
    # Nor does it help not to say how much will come.
    body = b"x" * (MAX_DOCUMENT_BYTES + 1)
    host.responses["/silent.json"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
    assert "cannot be fetched" in await refused(fetcher, host.url("/silent.json"))


async def test_a_host_that_does_not_answer_is_given_up(host: DocumentHost) -> None:
    host.responses["/client.json"] = None

    assert "in time" in await refused(ClientDocuments([host.netloc], seconds=0.2), host.url("/client.json"))


def test_five_seconds_are_given_by_default() -> None:
    assert ClientDocuments(["chat.example"])._seconds == documents.FETCH_SECONDS == 5.0


async def test_only_a_few_are_fetched_at_once_and_others_wait_for_a_place(
    fetcher: ClientDocuments, host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = host.put_client("/known.json")
    await fetcher.fetch(known)
    for number in range(MAX_FETCHES):
        host.responses[f"/{number}.json"] = None
    held = [
        asyncio.create_task(fetcher.fetch(host.url(f"/{number}.json"), source=f"203.0.113.{number}"))
        for number in range(MAX_FETCHES)
    ]
    await host.holding.wait()
    client_id = host.put_client("/client.json")

    # What is kept needs no place.
    await fetcher.fetch(known)
    with monkeypatch.context() as patient:
        patient.setattr(fetcher, "_seconds", 0.1)
        assert "try again" in await refused(fetcher, client_id)
    waiting = asyncio.create_task(fetcher.fetch(client_id))
    await asyncio.sleep(0)
    assert "/client.json" not in host.asked

    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert str((await waiting).client_id) == client_id


async def test_one_network_cannot_take_all_places(fetcher: ClientDocuments, host: DocumentHost) -> None:
    client_id = host.put_client("/client.json")
    for number in range(MAX_FETCHES + 1):
        host.responses[f"/{number}.json"] = None
    held = [
        asyncio.create_task(fetcher.fetch(host.url(f"/{number}.json"), source="203.0.113.7"))
        for number in range(MAX_FETCHES + 1)
    ]
    await host.holding.wait()

    assert str((await fetcher.fetch(client_id, source="198.51.100.1")).client_id) == client_id
    waiting = asyncio.create_task(fetcher.fetch(host.put_client("/own.json"), source="203.0.113.7"))
    await asyncio.sleep(0)

    assert "/own.json" not in host.asked
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert (await waiting).client_name == "Chat"
    assert 0 < len([path for path in host.asked if path[1].isdigit()]) <= MAX_OF_ONE


async def test_a_document_is_kept_for_a_while_and_only_so_many(fetcher: ClientDocuments, host: DocumentHost) -> None:
    ids = [host.put_client(f"/{number}.json") for number in range(MAX_CACHED + 1)]
    for client_id in ids:
        await fetcher.fetch(client_id)
    host.asked.clear()

    await fetcher.fetch(ids[-1])
    assert host.asked == []
    await fetcher.fetch(ids[0])
    assert host.asked == ["/0.json"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 60_000, b'{"client_id": 1}', b'{"redirect_uris": []}', b"{"],
)
async def test_what_is_no_document_is_refused(fetcher: ClientDocuments, host: DocumentHost, body: bytes) -> None:
    assert "cannot be fetched" in await refused(fetcher, host.put("/client.json", body))


@pytest.mark.parametrize(
    ("liked", "offered", "least"),
    [
        (None, None, "none"),
        ("none", None, "none"),
        ("private_key_jwt", None, "private_key_jwt"),
        ("private_key_jwt", ["none", "private_key_jwt"], "none"),
        ("client_secret_basic", ["none"], "none"),
        (None, ["private_key_jwt", "client_secret_post"], "private_key_jwt"),
        ("tls_client_auth", ["tls_client_auth", "private_key_jwt"], "private_key_jwt"),
    ],
)
async def test_the_least_is_taken_of_what_a_document_offers(
    fetcher: ClientDocuments, host: DocumentHost, liked: str | None, offered: list[str] | None, least: str
) -> None:
    said = {"token_endpoint_auth_method": liked, "token_endpoint_auth_methods_supported": offered}
    client_id = host.put_client("/client.json", jwks_uri=host.url("/jwks.json"), **said)

    assert (await fetcher.fetch(client_id)).token_endpoint_auth_method == least
    assert host.asked == ["/client.json"]


@pytest.mark.parametrize(
    "said",
    [
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": ["none"]},
        {"token_endpoint_auth_methods_supported": "none"},
        {"token_endpoint_auth_methods_supported": {"none": 1}},
        {"token_endpoint_auth_methods_supported": ["client_secret_jwt"]},
    ],
)
async def test_a_document_that_offers_no_way_of_ours_is_refused(
    fetcher: ClientDocuments, host: DocumentHost, said: dict[str, object]
) -> None:
    client_id = host.put_client("/client.json", **{"token_endpoint_auth_method": None, **said})

    assert "not valid" in await refused(fetcher, client_id)


async def test_a_host_with_a_certificate_of_nobody_is_refused(
    fetcher: ClientDocuments, host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id = host.put_client("/client.json")
    monkeypatch.delenv("SSL_CERT_FILE")

    assert "cannot be fetched" in await refused(fetcher, client_id)

    assert host.asked == []
