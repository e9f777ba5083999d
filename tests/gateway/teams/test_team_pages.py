"""People of an identity provider on our own pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_gateway.oauth.sessions import list_sessions
from opencode_gateway.sign_in.provider import RECHECK_SECONDS

if TYPE_CHECKING:
    from support.gateway.fake_identity_provider import FakeIdentityProvider
    from support.gateway.team_gateway import Make

ASK = "/asks/a3"


@pytest.mark.parametrize("mode", ["oidc", "github"])
async def test_a_login_at_the_provider_leads_straight_to_the_page(mode: str, gateway: Make) -> None:
    async with gateway(mode) as running, running.browser() as browser:
        shown = await running.visit(f"{running.url}{ASK}", browser=browser)

        assert shown.json()["login"] == "ann@example.org"
        assert str(shown.url) == f"{running.url}{ASK}"
        [session] = list_sessions(running.store)
        assert (session.client_name, session.login) == ("pages", "ann@example.org")
        assert [(event.event, event.outcome, event.kind) for event in running.events] == [
            ("login", "ok", mode),
            ("page-session-started", "ok", mode),
        ]


async def test_when_the_provider_would_be_asked_again_the_browser_goes_there_once_more(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running, running.browser() as browser:
        await running.visit(f"{running.url}{ASK}", browser=browser)
        running.clock.advance(RECHECK_SECONDS - 1)
        assert (await browser.get(f"{running.url}{ASK}")).status_code == 200
        running.clock.advance(1)
        assert (await browser.get(f"{running.url}{ASK}")).status_code == 303

        provider.denies = True
        refused = await running.visit(f"{running.url}{ASK}", browser=browser)

        assert "You are not logged in" in refused.text
        assert "chat client" not in refused.text


async def test_a_callback_that_is_replayed_or_comes_to_another_browser_begins_no_session(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser, running.browser() as other:
        sent = await running.visit(f"{running.url}{ASK}", browser=browser, until=f"{running.url}/auth/callback")
        callback = sent.headers["location"]

        for stranger, status in ((other, 403), (browser, 303), (browser, 403)):
            assert (await stranger.get(callback)).status_code == status

        assert len(list_sessions(running.store)) == 1


async def test_who_is_taken_out_of_the_list_is_out(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        await running.visit(f"{running.url}{ASK}", browser=browser)
        cookies = browser.cookies
    async with gateway(sign_in={"users": {"bob@example.org": ["observe"]}}) as running, running.browser() as again:
        again.cookies = cookies
        assert (await again.get(f"{running.url}{ASK}")).status_code == 303
        assert [event.outcome for event in running.events] == ["person-refused"]
