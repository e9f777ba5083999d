"""A session is asked about at the provider again: it goes on, ends, or waits until the provider answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.teams import upstream
from support.team_gateway import TeamGateway, pass_time

if TYPE_CHECKING:
    from support.fake_identity_provider import FakeIdentityProvider
    from support.team_gateway import Make

MODES = ("oidc", "google", "github")


def ended(running: TeamGateway) -> list[tuple[str | None, str | None, str | None]]:
    """Return why sessions ended, and whose they were."""
    return [(e.outcome, e.login, e.client_id) for e in running.events if e.event == "session-ended"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_session_goes_on_while_the_provider_renews_it(
    mode: str, gateway: Make, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(mode) as running:
        _, tokens = await running.log_in()
        asked = len(provider.called)
        assert await running.status(tokens["access_token"]) == 200
        assert len(provider.called) == asked
        pass_time(monkeypatch, upstream.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 200

        assert len(provider.called) > asked


@pytest.mark.parametrize("mode", MODES)
async def test_who_is_closed_at_the_provider_is_out_when_it_is_asked_again(
    mode: str, gateway: Make, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(mode) as running:
        client_id, tokens = await running.log_in()
        provider.end_sessions()
        assert await running.status(tokens["access_token"]) == 200

        pass_time(monkeypatch, upstream.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 401
        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "change", [{"email": "eve@example.org"}, {"email_verified": False}, {"email": "bob@example.org"}]
)
async def test_whose_address_is_another_when_the_provider_is_asked_again_is_out(
    change: dict[str, Any], gateway: Make, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.claims |= change
        assert await running.status(tokens["access_token"]) == 200

        pass_time(monkeypatch, upstream.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 401
        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("change", [{"email": "eve@example.org"}, {"email_verified": False}])
async def test_who_is_not_let_in_any_longer_when_a_client_refreshes_is_out_at_once(
    change: dict[str, Any], gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.claims |= change

        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"

        assert await running.status(tokens["access_token"]) == 401
        assert ended(running) == [("person-refused", "ann@example.org", client_id)]


async def test_a_renewal_without_an_id_token_is_one(
    gateway: Make, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.answer |= {"id_token": None}
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200

        pass_time(monkeypatch, upstream.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 200


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(600, 600), (None, upstream.UNTOLD_SECONDS), (30 * 86_400, 86_400)],
    ids=["when the provider said", "after an hour where it does not say", "after a day at the latest"],
)
async def test_a_login_that_cannot_be_renewed_ends(
    said: int | None, seconds: int, gateway: Make, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.refresh = False
    provider.answer = {"expires_in": said}
    async with gateway() as running:
        _, tokens = await running.log_in()
        assert "refresh_token" not in tokens
        pass_time(monkeypatch, seconds - 60)
        assert await running.status(tokens["access_token"]) == 200

        pass_time(monkeypatch, 60)

        assert await running.status(tokens["access_token"]) == 401


@pytest.mark.parametrize("error", ["temporarily_unavailable", "invalid_client"])
async def test_a_provider_that_renews_nothing_now_ends_no_session(
    error: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.error = error
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 503

        provider.error = None

        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize("mode", MODES)
async def test_a_session_that_cannot_be_renewed_now_is_refused_and_goes_on_later(
    mode: str, gateway: Make, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(mode) as running:
        client_id, tokens = await running.log_in()
        pass_time(monkeypatch, upstream.RECHECK_SECONDS)
        provider.status = 503

        with pytest.raises(upstream.ProviderFailed):
            await running.auth.verify_token(tokens["access_token"])
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 503

        provider.status = 200
        assert await running.status(tokens["access_token"]) == 200
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200
