"""What clients, browsers and people ask besides what they came for, before they know better."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from mcp.shared.auth import OAuthMetadata, ProtectedResourceMetadata

from support.gateway.product_gateway import ProductGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from support.gateway.service import Gateway

RESOURCE = ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp")
SERVER = ("/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/mcp")
OPENID = (
    "/.well-known/openid-configuration",
    "/.well-known/openid-configuration/mcp",
    "/mcp/.well-known/openid-configuration",
)
MESSAGE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}).encode()


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductGateway]:
    with ProductGateway(tmp_path_factory.mktemp("product")) as running:
        yield running


@pytest.mark.parametrize("path", RESOURCE)
def test_the_resource_is_described_at_both_addresses(product: ProductGateway, path: str) -> None:
    told = ProtectedResourceMetadata.model_validate(product.get(path).json())

    assert str(told.resource) == f"{product.url}/mcp"
    assert [str(server).rstrip("/") for server in told.authorization_servers] == [product.url]


@pytest.mark.parametrize("path", [*SERVER, *OPENID])
def test_the_server_is_described_wherever_clients_look(product: ProductGateway, path: str) -> None:
    told = OAuthMetadata.model_validate(product.get(path).json())

    assert str(told.issuer).rstrip("/") == product.url
    assert str(told.token_endpoint) == f"{product.url}/token"
    assert told.code_challenge_methods_supported == ["S256"]


def test_a_document_of_openid_has_what_its_parsers_demand_and_promises_no_id_token(product: ProductGateway) -> None:
    told = product.get(OPENID[0]).json()

    assert told["subject_types_supported"]
    assert told["id_token_signing_alg_values_supported"]
    assert "openid" not in told["scopes_supported"]
    assert product.get(told["jwks_uri"].removeprefix(product.url)).json() == {"keys": []}


@pytest.mark.parametrize("path", [*RESOURCE, *SERVER, *OPENID])
def test_documents_answer_head_and_options(product: ProductGateway, path: str) -> None:
    head = product.request("HEAD", path)
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", "application/json")

    options = product.request("OPTIONS", path)
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


def assert_told_where_to_log_in(answer: httpx.Response, gateway: Gateway) -> None:
    assert answer.status_code == 401
    where = f'resource_metadata="{gateway.url}/.well-known/oauth-protected-resource/mcp"'
    assert where in answer.headers["www-authenticate"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PUT"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
def test_whoever_has_no_token_is_told_so_before_anything_else(
    product: ProductGateway, method: str, path: str
) -> None:
    assert_told_where_to_log_in(product.request(method, path), product)
    assert_told_where_to_log_in(product.request(method, path, {"Authorization": "Bearer wrong"}), product)


def test_with_a_token_there_is_no_stream_to_get(gateway: Gateway) -> None:
    token = {"Authorization": "Bearer all-token", "Accept": "text/event-stream"}

    answer = gateway.request("GET", "/mcp", token)

    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    # No session is kept that could be ended.
    assert gateway.request("DELETE", "/mcp", token).status_code in {200, 405}
    assert gateway.request("OPTIONS", "/mcp").status_code == 204


def test_a_slash_at_the_end_changes_nothing(gateway: Gateway) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    headers = {
        "Authorization": "Bearer all-token",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
    }

    with_slash, without = (gateway.request("POST", path, headers, message) for path in ("/mcp/", "/mcp"))

    assert (with_slash.status_code, with_slash.text) == (200, without.text)


def test_a_person_who_opens_the_bare_address_sees_which_url_to_paste(product: ProductGateway) -> None:
    answer = product.get("/", Accept="text/html,*/*;q=0.8")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"<code>{product.url}/mcp</code>" in answer.text
    assert "sudo opencode-gateway clients allow" in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    style = answer.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    assert product.get(style).status_code == 200


def test_a_program_at_the_bare_address_gets_a_pointer(product: ProductGateway) -> None:
    answer = product.get("/", Accept="application/json")
    assert (answer.status_code, answer.json()["mcp"]) == (200, f"{product.url}/mcp")

    # Who opens a stream would take 200 for the beginning of one.
    stream = product.get("/", Accept="text/event-stream")
    assert (stream.status_code, stream.json()["mcp"]) == (404, f"{product.url}/mcp")


def test_a_message_to_the_bare_address_is_told_the_right_one(product: ProductGateway) -> None:
    answer = product.request("POST", "/", {"Content-Type": "application/json"}, MESSAGE)

    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert f"{product.url}/mcp" in answer.json()["error"]["message"]


def test_browsers_and_robots_get_what_they_look_for(product: ProductGateway) -> None:
    assert product.get("/favicon.ico").status_code == 204
    assert product.get("/robots.txt").text == "User-agent: *\nDisallow: /\n"
    assert product.get("/", Accept="application/json").headers["x-robots-tag"] == "noindex"


@pytest.mark.parametrize("path", ["/sse", "/wp-login.php", "/.well-known/other", "/mcp/other"])
def test_an_unknown_path_is_a_short_404(product: ProductGateway, path: str) -> None:
    answer = product.get(path)

    assert answer.status_code == 404
    assert len(answer.content) < 100
