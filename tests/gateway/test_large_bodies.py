"""A body that is too large gets 413, and what comes early arrives, through the real Caddy with the role's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from opencode_gateway.door.limits import CALL_BYTES
from support.gateway.caddy import Caddy
from support.gateway.product_gateway import ProductGateway
from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from collections.abc import Iterator


PART = 16 * 1024
CALL = {
    "Authorization": "Bearer all-token",
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SIZES = [CALL_BYTES + 1, 290_000, 300_000, 3_000_000]


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Caddy with the role's limits, before a gateway of given tokens."""
    directory = tmp_path_factory.mktemp("fronted")
    caddy = Caddy(directory / "caddy")
    servers = {"fixture": fixture_entry()}
    with Gateway(directory / "gateway", servers, public_url=caddy.url, behind_proxy=True) as gateway:
        caddy.start(gateway.port)
        try:
            with httpx.Client(base_url=caddy.url, verify=caddy.trust(), trust_env=False, timeout=60.0) as client:
                yield client
        finally:
            caddy.stop()


@pytest.fixture(scope="module")
def fronted_sign_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Caddy with the role's limits, before the product."""
    directory = tmp_path_factory.mktemp("fronted")
    caddy = Caddy(directory / "caddy")
    with ProductGateway(directory / "gateway", public_url=caddy.url, behind_proxy=True) as gateway:
        caddy.start(gateway.port)
        try:
            with httpx.Client(base_url=caddy.url, verify=caddy.trust(), trust_env=False, timeout=60.0) as client:
                yield client
        finally:
            caddy.stop()


def parts(size: int) -> Iterator[bytes]:
    """Yield a body whose length is not told."""
    for begin in range(0, size, PART):
        yield b" " * min(PART, size - begin)


def sent(client: httpx.Client, path: str, size: int, headers: dict[str, str], *, chunked: bool) -> int:
    return client.post(path, content=parts(size) if chunked else b" " * size, headers=headers).status_code


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
@pytest.mark.parametrize("size", SIZES)
def test_a_large_call_gets_413_through_caddy(fronted: httpx.Client, path: str, size: int, *, chunked: bool) -> None:
    assert sent(fronted, path, size, CALL, chunked=chunked) == 413


@pytest.mark.parametrize("chunked", [False, True])
def test_the_largest_call_that_is_taken_passes_caddy(fronted: httpx.Client, *, chunked: bool) -> None:
    # It is no message.
    assert sent(fronted, "/mcp", CALL_BYTES, CALL, chunked=chunked) == 400


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("path", "headers"), [("/register", {"Content-Type": "application/json"}), ("/token", FORM)])
@pytest.mark.parametrize("size", [40_000, 99_999, 100_000, 300_000])
def test_a_large_form_gets_413_through_caddy(
    fronted_sign_in: httpx.Client, path: str, headers: dict[str, str], size: int, *, chunked: bool
) -> None:
    assert sent(fronted_sign_in, path, size, headers, chunked=chunked) == 413


@pytest.mark.parametrize("chunked", [False, True])
def test_without_a_token_a_large_call_is_told_so_through_caddy(fronted: httpx.Client, *, chunked: bool) -> None:
    headers = {"Content-Type": "application/json"}
    for _ in range(5):
        assert sent(fronted, "/mcp", 290_000, headers, chunked=chunked) == 401
