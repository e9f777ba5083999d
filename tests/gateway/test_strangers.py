"""Whatever a stranger sends before a login is answered in OAuth's forms, never with a 500, and fills nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opencode_gateway.oauth import clients
from opencode_gateway.oauth.clients import clean_name
from opencode_gateway.oauth.documents import ClientDocuments, DocumentRefused
from opencode_gateway.oauth.enrolment import list_clients
from support.gateway.authorization import CALLBACK, PUBLIC_URL, AuthorizationServer, proof
from support.gateway.client_keys import ClientKey, signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = st.text(max_size=60)
NASTY = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "%00",
        "\ud7ff",
        "🙂",
        "'; DROP TABLE clients;--",
        "../../etc/passwd",
        "A" * 5000,
        "https://[",
        "S256",
    ]
)
ANY_TEXT = TEXT | NASTY
URLS = st.sampled_from(
    [
        CALLBACK,
        f"{PUBLIC_URL}/mcp",
        "https://claude.ai/x",
        "https://evil.example/",
        "http://127.0.0.1:1/",
        "javascript:1",
    ]
)
NAMES = st.sampled_from(
    [
        "client_id",
        "client_secret",
        "redirect_uri",
        "response_type",
        "code_challenge",
        "code_challenge_method",
        "state",
        "scope",
        "resource",
        "grant_type",
        "code",
        "code_verifier",
        "refresh_token",
        "token",
        "token_type_hint",
        "assertion",
        "client_assertion",
        "client_assertion_type",
    ]
)
VALUES = (
    ANY_TEXT
    | URLS
    | st.sampled_from(["code", "authorization_code", "refresh_token", "access_token", "observe", "CLIENT", "x" * 43])
)
PAIRS = st.lists(st.tuples(NAMES | TEXT, VALUES), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | URLS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "redirect_uris",
        "client_name",
        "token_endpoint_auth_method",
        "token_endpoint_auth_methods_supported",
        "grant_types",
        "response_types",
        "scope",
        "contacts",
        "jwks",
        "jwks_uri",
        "logo_uri",
        "client_uri",
        "application_type",
        "software_id",
    ]
)
GRANTED = {"grant_types": ["authorization_code", "refresh_token"], "redirect_uris": [CALLBACK]}


class _Kept(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


class Doors:
    """The server as strangers reach it. Its log is kept: nothing that they send may be an error there."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.server = AuthorizationServer(directory, **settings)
        self.problems: list[logging.LogRecord] = []
        self.handler = _Kept(self.problems)
        self.client_id = ""

    def ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """Send a request from outside of any loop, and see that the answer is one."""

        async def once() -> httpx.Response:
            # An application that raises is an error of this test.
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(self.server.app), base_url=PUBLIC_URL, follow_redirects=False
            ) as http:
                return await http.request(method, path, **sent)

        self.problems.clear()
        answer = asyncio.run(once())
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
        assert not [record for record in self.problems if record.exc_info or record.levelno >= logging.ERROR]
        return answer

    def rows(self) -> dict[str, int]:
        with self.server.store.transaction(write=False) as db:
            names = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}  # noqa: S608


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    doors = Doors(tmp_path_factory.mktemp("doors"), clients={"loopback_redirects": True})
    logging.root.addHandler(doors.handler)
    doors.server.open_window(minutes=60)
    doors.client_id = doors.ask("POST", "/register", json=GRANTED).json()["client_id"]
    yield doors
    logging.root.removeHandler(doors.handler)
    asyncio.run(doors.server.close())


def form(pairs: list[tuple[str, str]], client_id: str) -> str:
    return "&".join(
        f"{quote_plus(name)}={quote_plus(client_id if value == 'CLIENT' else value)}" for name, value in pairs
    )


@given(PAIRS)
def test_any_query_and_form_is_answered_by_authorize(doors: Doors, pairs: list[tuple[str, str]]) -> None:
    before = doors.rows()
    sent = form([*pairs, ("client_id", "CLIENT")], doors.client_id)

    for answer in (
        doors.ask("GET", f"/authorize?{sent}"),
        doors.ask("POST", "/authorize", content=sent, headers={"content-type": "application/x-www-form-urlencoded"}),
    ):
        assert answer.status_code in {302, 400, 413}
        if answer.status_code == 302:
            location = answer.headers["location"]
            assert location.startswith((f"{CALLBACK}?", f"{PUBLIC_URL}/login?request="))
    assert doors.rows() == before


@given(
    st.sampled_from(["state", "scope", "code_challenge", "code_challenge_method", "resource", "redirect_uri"]), VALUES
)
def test_a_good_request_with_one_odd_parameter_is_answered(doors: Doors, name: str, value: str) -> None:
    asked = {
        "client_id": doors.client_id,
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "code_challenge": proof().challenge,
        "code_challenge_method": "S256",
        "state": "x",
    }

    answer = doors.ask("GET", f"/authorize?{form(list((asked | {name: value}).items()), doors.client_id)}")

    assert answer.status_code in {302, 400}
    if answer.status_code == 302:
        assert "iss=" in answer.headers["location"] or "/login?" in answer.headers["location"]


@given(st.sampled_from(["/token", "/revoke"]), PAIRS, st.sampled_from(["authorization_code", "refresh_token", "x"]))
def test_any_form_is_answered_by_token_and_revoke(
    doors: Doors, path: str, pairs: list[tuple[str, str]], grant_type: str
) -> None:
    before = doors.rows()
    sent = form([*pairs, ("client_id", "CLIENT"), ("grant_type", grant_type)], doors.client_id)

    answer = doors.ask("POST", path, content=sent, headers={"content-type": "application/x-www-form-urlencoded"})

    assert answer.status_code in ({400, 401, 413} if path == "/token" else {200, 400, 401, 413})
    if answer.status_code in {400, 401}:
        assert answer.json()["error"]
    assert doors.rows() == before


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def signing_client(doors: Doors) -> str:
    """The id of a client that must sign."""
    doors.server.open_window(minutes=60)
    asked = {"token_endpoint_auth_method": "private_key_jwt", "jwks": ClientKey().key_set()}
    return str(doors.ask("POST", "/register", json=GRANTED | asked).json()["client_id"])


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "jku", "x5c", "b64"]) | TEXT, JSON) | JSON,
    st.dictionaries(st.sampled_from(["iss", "sub", "aud", "exp", "iat", "nbf", "jti"]) | TEXT, JSON) | JSON,
    st.tuples(st.sampled_from(["RS256", "ES256", "HS256", "none"]) | JSON, ANY_TEXT),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_assertion_proves_nothing(
    doors: Doors, signing_client: str, header: Any, claims: Any, ends: tuple[Any, str]
) -> None:
    algorithm, signature = ends
    good = {"iss": signing_client, "sub": signing_client, "aud": PUBLIC_URL, "exp": time.time() + 60, "jti": "x"}
    headers, bodies = [header, {"alg": algorithm}], [claims, good]
    if isinstance(header, dict) and isinstance(claims, dict):
        headers.append({"alg": algorithm} | header)
        bodies.append(good | claims)
    sent = {"grant_type": "refresh_token", "refresh_token": "x"}
    for head, body in zip(headers, reversed(bodies), strict=True):
        for who in ({}, {"client_id": signing_client}):
            assertion = signed(f"{part(head)}.{part(body)}.{signature}")
            assert doors.ask("POST", "/token", data=sent | who | assertion).status_code in {400, 401, 413}


@given(
    st.sampled_from(["/token", "/revoke", "/authorize", "/register"]),
    st.binary(max_size=300),
    st.sampled_from(
        [
            "application/x-www-form-urlencoded",
            "application/json",
            "multipart/form-data; boundary=x",
            "multipart/form-data",
            "",
        ]
    )
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    st.sampled_from(["", "Basic Og==", "Basic !", "Bearer x", "Basic " + "A" * 3000]),
)
def test_any_bytes_are_answered(doors: Doors, path: str, body: bytes, kind: str, authorization: str) -> None:
    before = doors.rows()

    answer = doors.ask("POST", path, content=body, headers={"content-type": kind, "authorization": authorization})

    assert answer.status_code in {400, 401, 413}
    assert doors.rows() == before


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_name_and_secret_in_the_header_are_answered(doors: Doors, name: str, secret: str) -> None:
    for encoded in (f"{name}:{secret}", f"{doors.client_id}:{secret}", name):
        header = {"authorization": "Basic " + base64.b64encode(encoded.encode(errors="surrogatepass")).decode()}
        for path in ("/token", "/revoke"):
            answer = doors.ask("POST", path, data={"token": "x", "grant_type": "refresh_token"}, headers=header)
            assert answer.status_code in {200, 400, 401}


@given(st.binary(max_size=200))
def test_any_upload_is_answered(doors: Doors, content: bytes) -> None:
    for path in ("/token", "/revoke", "/authorize"):
        answer = doors.ask("POST", path, files={"client_id": ("x", content), "token": ("y", content)})
        assert answer.status_code in {400, 401}


@given(st.dictionaries(FIELDS | TEXT, JSON, max_size=8))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_metadata_is_answered_by_register_and_fills_little(doors: Doors, metadata: dict[str, Any]) -> None:
    for content in (metadata, {**metadata, **GRANTED}):
        answer = doors.ask(
            "POST", "/register", content=json.dumps(content), headers={"content-type": "application/json"}
        )
        assert answer.status_code in {201, 400, 413}
        if answer.status_code == 400:
            assert answer.json()["error"] in {"invalid_client_metadata", "invalid_redirect_uri"}

        if answer.status_code == 201:
            client = doors.server.provider.clients.known(answer.json()["client_id"])
            assert client is not None
            assert len(client.client_name or "") <= clients.MAX_NAME
            assert all(map(client.allowed.allows, map(str, client.redirect_uris or [])))
    assert list_clients(doors.server.store) == []


@given(st.sampled_from([b"[", b'{"a":', b'{"redirect_uris":']), st.integers(1, 8000))
def test_metadata_nested_deeply_is_refused(doors: Doors, opening: bytes, depth: int) -> None:
    answer = doors.ask("POST", "/register", content=opening * depth)

    assert answer.status_code in {400, 413}


@given(ANY_TEXT)
def test_any_path_below_well_known_is_answered(doors: Doors, name: str) -> None:
    for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE"):
        for known in ("oauth-authorization-server", "oauth-protected-resource", "oauth-protected-resource/mcp"):
            doors.ask(method, f"/.well-known/{known}/{quote(name[:100], safe='')}")
            doors.ask(method, f"/.well-known/{known}?{quote(name[:100])}")


@given(ANY_TEXT)
def test_any_token_is_no_token(doors: Doors, token: str) -> None:
    for prefix in ("", "oga_", "ogr_", "ogc_"):
        assert asyncio.run(doors.server.provider.verify_token(prefix + token)) is None


@given(ANY_TEXT)
def test_any_signed_request_is_not_read(doors: Doors, signed: str) -> None:
    assert doors.server.provider.requests.read(signed) is None


@given(
    st.text(max_size=40) | NASTY,
    st.sampled_from(
        ["https://", "HTTPS://", "https:/", "https://chat.example/", "https://chat.example:1/", "https://["]
    ),
)
def test_no_client_id_of_another_form_leads_to_a_fetch(
    monkeypatch_documents: list[str], tail: str, head: str
) -> None:
    documents = ClientDocuments(["chat.example"])
    monkeypatch_documents.clear()

    with pytest.raises(DocumentRefused):
        asyncio.run(documents.fetch(head + tail))

    for url in monkeypatch_documents:
        assert url.startswith("https://chat.example/")
        assert url.isascii()
        assert not set(url) & set("?#\\ \0")


@pytest.fixture(scope="module")
def monkeypatch_documents() -> Iterator[list[str]]:
    """What would have been fetched: the names of hosts are looked up nowhere."""
    resolved: list[str] = []

    async def nowhere(url: str, **_: object) -> None:
        resolved.append(url)
        raise ValueError(url)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opencode_gateway.oauth.documents.ssrf_safe_fetch", nowhere)
        yield resolved


@given(st.text(max_size=300))
def test_any_name_becomes_one_line_that_is_not_empty(name: str) -> None:
    shown = clean_name(name)

    assert 0 < len(shown) <= clients.MAX_NAME
    assert shown.isprintable() or not any(character in shown for character in "\n\r\t\0\u202e")
    assert shown == clean_name(shown)
