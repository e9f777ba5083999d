"""Which web pages may ask what: those of allowed origins as clients, its own forms, and everybody for metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from opencode_gateway.configuration import Configuration, load_configuration
from opencode_gateway.door.guards import guarded
from opencode_gateway.errors import ConfigError
from support.gateway.product_gateway import ProductGateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.requests import Request

    from opencode_gateway.refusals import Refusal

INSPECTOR = "http://localhost:6274"
STRANGER = "https://evil.example.org"
ENDPOINTS = ("/mcp", "/register", "/token", "/revoke")
DOCUMENTS = ("/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server")
PAGES = ("/login", "/consent", "/authorize", "/auth/callback", "/")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductGateway]:
    """A gateway that allows the Inspector's page."""
    with ProductGateway(tmp_path_factory.mktemp("gateway"), clients={"origins": [INSPECTOR]}) as running:
        yield running


def preflight(gateway: ProductGateway, path: str, origin: str, method: str = "POST") -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type, mcp-protocol-version, mcp-param-x",
    }
    return gateway.request("OPTIONS", path, headers)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_browser_lets_a_page_of_an_allowed_origin_ask(gateway: ProductGateway, path: str) -> None:
    answer = preflight(gateway, path, INSPECTOR)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == INSPECTOR
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"]
    for name in ("authorization", "content-type", "mcp-protocol-version", "mcp-param-x"):
        assert name in allowed
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", ENDPOINTS)
def test_what_such_a_page_is_told_it_may_read(gateway: ProductGateway, path: str) -> None:
    answer = gateway.request("POST", path, {"Origin": INSPECTOR, "Content-Type": "application/json"}, b"{}")

    assert answer.status_code in {400, 401}
    assert answer.headers["access-control-allow-origin"] == INSPECTOR
    exposed = answer.headers["access-control-expose-headers"].lower()
    for name in ("www-authenticate", "mcp-session-id", "mcp-protocol-version"):
        assert name in exposed
    assert "access-control-allow-credentials" not in answer.headers
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("path", ENDPOINTS)
def test_other_origins_are_refused_and_told_the_setting(gateway: ProductGateway, path: str) -> None:
    for answer in (preflight(gateway, path, STRANGER), gateway.request("POST", path, {"Origin": STRANGER}, b"{}")):
        assert answer.status_code == 403
        assert "clients.origins" in answer.text
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("origin", [STRANGER, INSPECTOR, "null", "https://user@evil.example.org"])
@pytest.mark.parametrize("path", DOCUMENTS)
def test_metadata_is_public(gateway: ProductGateway, path: str, origin: str) -> None:
    answer = gateway.get(path, Origin=origin)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    asked = preflight(gateway, path, origin, "GET")
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize("origin", [STRANGER, INSPECTOR])
@pytest.mark.parametrize("path", PAGES)
def test_pages_for_people_are_for_no_other_origin(gateway: ProductGateway, path: str, origin: str) -> None:
    for answer in (gateway.get(path, Origin=origin), preflight(gateway, path, origin)):
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_who_is_allowed_is_asked_anew_each_time_and_refusals_are_reported() -> None:
    async def answer(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    origins: list[str] = []
    refusals: list[Refusal] = []
    app = guarded(
        Starlette(routes=[Route("/token", answer, methods=["POST"])]),
        "https://relay.example.org",
        origins=lambda: origins,
        on_refusal=refusals.append,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://relay.example.org") as client:
        assert (await client.post("/token", headers={"Origin": INSPECTOR})).status_code == 403
        origins.append(INSPECTOR)
        assert (await client.post("/token", headers={"Origin": INSPECTOR})).text == "here"
        assert (await client.post("/token", headers={"Origin": f"{INSPECTOR}0"})).status_code == 403

    assert [(refusal.kind, refusal.client) for refusal in refusals] == [
        ("origin", INSPECTOR),
        ("origin", f"{INSPECTOR}0"),
    ]
    assert "clients.origins" in refusals[0].remedy


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example.org", "chat.example.org", "https://chat.example.org/", "null", "https://a b"]
)
def test_what_is_no_origin_cannot_be_configured(tmp_path: Path, origin: str) -> None:
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps({"public_url": "https://relay.example.org", "clients": {"origins": [origin]}}))

    with pytest.raises(ConfigError, match="origins"):
        load_configuration(config)


def test_no_origin_is_allowed_by_default() -> None:
    assert Configuration(public_url="https://relay.example.org").clients.origins == ()


def test_the_page_of_a_known_client_is_allowed_once_that_is_switched_on(gateway: ProductGateway) -> None:
    page = "http://127.0.0.1:6274"
    assert preflight(gateway, "/mcp", page).status_code == 403

    assert gateway.owner("clients", "enable", "inspector").returncode == 0

    assert preflight(gateway, "/mcp", page).headers["access-control-allow-origin"] == page
    gateway.owner("clients", "disable", "inspector")
    assert preflight(gateway, "/mcp", page).status_code == 403
