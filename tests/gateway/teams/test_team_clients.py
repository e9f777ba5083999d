"""Clients of a gateway whose people log in at a provider: who is admitted, and where codes are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_gateway.oauth import enrolment
from support.gateway.authorization import answer_of
from support.gateway.fake_documents import document_host
from support.gateway.fake_identity_provider import CLIENT_ID
from support.gateway.team_gateway import TeamGateway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.gateway.fake_identity_provider import FakeIdentityProvider
    from support.gateway.team_gateway import Make


async def test_a_client_registers_in_the_window_alone(gateway: Make) -> None:
    async with gateway() as running:
        answer = await running.register()

        assert answer.status_code == 400
        assert "opencode-gateway clients allow" in answer.json()["error_description"]


async def test_our_own_id_at_the_provider_is_no_client(gateway: Make) -> None:
    async with gateway() as running:
        running.open_window()

        page = await running.visit(running.asking(CLIENT_ID))

        assert page.status_code == 400
        assert "not registered" in page.text


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/cb",
        "https://claude.ai/api/mcp/auth_callback?x=1",
        "https://claude.ai/api/mcp/auth_callback/",
    ],
)
async def test_codes_are_sent_nowhere_else(uri: str, gateway: Make) -> None:
    async with gateway() as running:
        client_id = await running.registered()

        page = await running.visit(running.asking(client_id, redirect_uri=uri))
        running.open_window()
        registered = await running.register(redirect_uris=[uri])

        assert (page.status_code, registered.status_code) == (400, 400)


async def test_another_resource_is_refused(gateway: Make) -> None:
    async with gateway() as running:
        client_id = await running.registered()

        sent = await running.visit(running.asking(client_id, resource="https://other.example/mcp"))

        answer = answer_of(sent.headers["location"])
        assert (answer["error"], answer["iss"]) == ("invalid_target", running.url)


@pytest.mark.parametrize("challenge", ["x" * 42, "x" * 44, "x" * 42 + "="])
async def test_a_challenge_that_is_none_of_s256_is_refused(challenge: str, gateway: Make) -> None:
    async with gateway() as running:
        sent = await running.visit(running.asking(await running.registered(), challenge))

        answer = answer_of(sent.headers["location"])
        assert (answer["error"], answer["iss"]) == ("invalid_request", running.url)


@pytest.mark.parametrize("answer", ["allow", "deny", "at the provider"])
async def test_a_redirect_that_is_not_allowed_any_longer_gets_no_answer(
    answer: str, configure: Callable[..., Configuration], tls: tuple[Path, Path], provider: FakeIdentityProvider
) -> None:
    configuration = configure()
    clients = configuration.clients.model_copy(update={"redirect_uris": ("https://chat.example.org/cb",)})
    async with TeamGateway(configuration, *tls) as running, running.browser() as browser:
        asked = await browser.get(running.asking(await running.registered()))
        begun = f"{running.url}{asked.headers['location'].removeprefix(running.url)}"
    provider.denies = answer == "at the provider"

    async with TeamGateway(configuration.model_copy(update={"clients": clients}), *tls) as running:
        page = await running.visit(begun, answer=answer)

        assert page.status_code == 409
        assert "claude.ai is not an address that this relay allows any longer" in page.text
        assert "location" not in page.headers


async def test_a_client_known_by_its_document_needs_the_window_each_time(
    gateway: Make, tls: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with document_host(tmp_path, monkeypatch) as host:
        both = tmp_path / "authorities.pem"
        both.write_bytes(tls[0].read_bytes() + (tmp_path / "certificate.pem").read_bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
        client_id = host.put_client("/client.json")
        async with gateway(clients={"client_id_hosts": [host.netloc]}) as running:
            closed = await running.visit(running.asking(client_id))
            running.open_window()
            _, tokens = await running.log_in(client_id)
            enrolment.close_window(running.store, now=running.clock())
            again = await running.visit(running.asking(client_id))

            assert (closed.status_code, again.status_code) == (400, 400)
            assert "clients allow" in closed.text
            token = await running.auth.verify_token(tokens["access_token"])
            assert (token.client_id, token.claims["client_name"]) == (client_id, "Chat")
            assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200
