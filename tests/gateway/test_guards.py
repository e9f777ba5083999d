"""What every request meets before anybody looks at its token: Host, Origin, sizes, time, headers of the answer."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from opencode_gateway.door.guards import FORM_BYTES, SlowBodyGuard, guarded
from opencode_gateway.door.limits import CALL_BYTES
from support.chat.plain_http import NO_TLS
from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

PUBLIC = "https://relay.example.org"


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())), headers={"Cache-Control": "max-age=60"})


async def _asked(
    path: str = "/login",
    *,
    public_url: str = PUBLIC,
    host: str = "relay.example.org",
    content: bytes | None = None,
    **headers: str,
) -> httpx.Response:
    """Ask a guarded app that has two routes."""
    routes = [Route(path, _echo, methods=["GET", "POST"]) for path in ("/login", "/healthz")]
    transport = httpx.ASGITransport(guarded(Starlette(routes=routes), public_url))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        method = "GET" if content is None else "POST"
        return await client.request(method, path, content=content, headers={"Host": host, **headers})


@pytest.mark.parametrize("host", ["relay.example.org", "RELAY.example.org", "relay.example.org:443"])
async def test_the_public_host_is_served(host: str) -> None:
    assert (await _asked(host=host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.org",
        "relay.example.org:8443",
        "relay.example.org.evil.example",
        "127.0.0.1",
        "localhost:8790",
        "relay.example.org@evil.example",
        "evil.example/relay.example.org",
        "relay.example.org, evil.example",
        "[::1",
        "relay.example.org:99999",
        "relay.exa\tmple.org",
        " relay.example.org",
        "relay.example.org?",
        "relay.example.org#",
        "",
    ],
)
async def test_another_host_is_not(host: str) -> None:
    assert (await _asked(host=host)).status_code == 421


@pytest.mark.parametrize(
    ("second", "status"),
    [((b"host", b"evil.example.org"), 421), ((b"origin", b"https://evil.example.org"), 403)],
)
async def test_a_second_host_or_origin_is_refused(second: tuple[bytes, bytes], status: int) -> None:
    sent: list[Any] = []
    headers = [(b"host", b"relay.example.org"), (b"origin", PUBLIC.encode()), second]
    scope = {"type": "http", "method": "GET", "path": "/login", "headers": headers, "query_string": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await guarded(Starlette(), PUBLIC)(scope, receive, send)

    assert sent[0]["status"] == status


@pytest.mark.parametrize("host", ["127.0.0.1:8790", "localhost", "[::1]:8790"])
async def test_health_is_for_loopback_names_alone(host: str) -> None:
    assert (await _asked("/healthz", host=host)).status_code == 200
    assert (await _asked("/healthz")).status_code == 421


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (PUBLIC, 200),
        (f"{PUBLIC}:443", 200),
        ("http://relay.example.org", 403),
        ("https://relay.example.org:8443", 403),
        ("https://evil.example.org", 403),
        ("https://claude.ai", 403),
        ("null", 403),
        ("", 403),
        ("https://relay.example.org/path", 403),
        ("https://user@relay.example.org", 403),
    ],
)
async def test_only_pages_of_its_own_origin_may_send_requests(origin: str, status: int) -> None:
    assert (await _asked(Origin=origin)).status_code == status


async def test_a_form_has_at_most_64_kib() -> None:
    assert (await _asked(content=b"x" * FORM_BYTES)).text == str(FORM_BYTES)
    assert (await _asked(content=b"x" * (FORM_BYTES + 1))).status_code == 413


async def test_what_a_route_says_of_its_answer_stays_and_the_rest_is_added() -> None:
    headers = (await _asked()).headers

    assert headers["cache-control"] == "max-age=60"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    # Anything stricter, and browsers send `Origin: null` with our own forms.
    assert headers["referrer-policy"] == "same-origin"
    assert headers["strict-transport-security"]


async def test_only_https_is_said_to_be_https_for_good() -> None:
    answer = await _asked(public_url="http://127.0.0.1:8790", host="127.0.0.1:8790")

    assert answer.status_code == 200
    assert "strict-transport-security" not in answer.headers


async def test_refusals_carry_the_headers_too() -> None:
    assert (await _asked(host="evil.example.org")).headers["x-frame-options"] == "DENY"


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    sent: list[Any] = []
    parts = iter([{"type": "http.request", "body": b"a", "more_body": True}])

    async def receive() -> Any:
        for part in parts:
            return part
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    app = SlowBodyGuard(Starlette(routes=[Route("/login", _echo, methods=["POST"])]), seconds=0.05)
    await app({"type": "http", "method": "POST", "path": "/login", "headers": [], "query_string": b""}, receive, send)

    assert [message.get("status") for message in sent if message["type"] == "http.response.start"] == [408]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that believes a front on loopback."""
    servers = {"fixture": fixture_entry()}
    with Gateway(tmp_path_factory.mktemp("proxied"), servers, behind_proxy=True) as running:
        yield running


def call(gateway: Gateway, *forwarded: str) -> str:
    """Call a tool with these X-Forwarded-For headers; return the address that the audit log has."""
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "read", "arguments": {"instance": "x"}},
    }
    headers = [
        ("Authorization", "Bearer observe-token"),
        ("Accept", "application/json, text/event-stream"),
        ("Content-Type", "application/json"),
        *(("X-Forwarded-For", value) for value in forwarded),
    ]
    answer = httpx.post(
        f"{gateway.url}/mcp", content=json.dumps(message), headers=headers, trust_env=False, verify=NO_TLS
    )
    assert answer.status_code == 200, answer.text
    address: str = gateway.audit()[-1]["address"]
    return address


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (
            ["198.51.100.1, 203.0.113.7"],
            "203.0.113.7",
        ),  # what the client itself sent stands left of what the front saw
        (["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 127.0.0.1"], "203.0.113.7"),
        (["2001:db8::7"], "2001:db8::7"),
        ([], "127.0.0.1"),
    ],
)
def test_behind_a_front_the_address_is_the_one_that_it_saw(
    proxied: Gateway, forwarded: list[str], address: str
) -> None:
    assert call(proxied, *forwarded) == address


def test_without_a_front_nobody_is_believed_about_addresses(gateway: Gateway) -> None:
    assert call(gateway, "203.0.113.7") == "127.0.0.1"


def test_the_running_gateway_guards_all_its_routes(gateway: Gateway) -> None:
    for path in ("/mcp", "/healthz", "/authorize", "/login", "/nothing"):
        assert gateway.get(path, Host="evil.example.org").status_code == 421
        assert gateway.get(path, Origin="https://evil.example.org").status_code == 403


def test_without_a_token_nothing_of_a_body_is_read(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nContent-Length: 4000000\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_a_call_of_more_than_256_kib_is_refused(gateway: Gateway) -> None:
    headers = {"Authorization": "Bearer all-token", "Accept": "application/json, text/event-stream"}

    def sent(size: int) -> int:
        content = b" " * size + b"{}"
        return gateway.request("POST", "/mcp", {**headers, "Content-Type": "application/json"}, content).status_code

    assert sent(CALL_BYTES) == 413
    assert sent(CALL_BYTES - 2) != 413


def test_headers_are_bounded(gateway: Gateway) -> None:
    assert gateway.get("/healthz", Cookie="x" * 16_000).status_code == 200
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nCookie: {'x' * 40_000}\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
