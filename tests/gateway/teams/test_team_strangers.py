"""What somebody who has not logged in at the provider can have the gateway do: little, and seldom."""

from __future__ import annotations

import base64
import hmac
import logging
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.teams.provider import CALLBACK_PATH
from support.authorization import proof
from support.fake_identity_provider import CLIENT_SECRET
from support.team_gateway import form_of

if TYPE_CHECKING:
    from support.fake_identity_provider import FakeIdentityProvider
    from support.team_gateway import Make


async def test_a_consent_that_is_no_plain_form_is_not_read(gateway: Make) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="txn_id"\r\n\r\n\\ud800\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x; charset=unicode_escape"
    async with gateway() as running:
        answer = await running.http.post("/consent", content=body, headers={"Content-Type": kind})

        assert answer.status_code == 400
        assert "x-www-form-urlencoded" in answer.text


@pytest.mark.parametrize("query", [{"error": "e", "error_description": "flood"}, {"state": "flood", "code": "flood"}])
async def test_a_callback_of_no_login_is_not_logged(
    query: dict[str, str], gateway: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fastmcp"), "propagate", True)
    caplog.set_level(logging.INFO)
    async with gateway() as running:
        shown = await running.http.get(CALLBACK_PATH, params=query)

        assert shown.status_code == 400
        assert "flood" not in shown.text
        assert not running.events
    assert "flood" not in caplog.text.replace(str(shown.url), "")


async def test_lines_about_people_who_have_not_logged_in_are_few(gateway: Make) -> None:
    async with gateway() as running:
        client_id = await running.registered()
        running.events.clear()
        for _ in range(40):
            await running.visit(running.asking(client_id), answer="deny")

        assert 20 <= len(running.events) <= 35
        await running.log_in(client_id)
        assert (running.events[-1].event, running.events[-1].outcome) == ("login", "ok")


async def test_a_login_that_was_denied_or_refused_is_over(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running:
        client_id = await running.registered()
        async with running.browser() as browser:
            consent = (await browser.get(running.asking(client_id))).headers["location"]
            await browser.post(consent, data=form_of(await browser.get(consent)) | {"action": "deny"})
            assert (await browser.get(consent)).status_code == 400

            provider.claims["email"] = "eve@example.org"
            back = await running.visit(
                running.asking(client_id, proof().challenge), browser=browser, until=f"{running.url}{CALLBACK_PATH}"
            )
            assert (await browser.get(back.headers["location"])).status_code == 403
            asked = len(provider.called)
            assert (await browser.get(back.headers["location"])).status_code == 400
            assert len(provider.called) == asked


async def test_a_cookie_lets_nobody_guess_at_the_secret_at_the_provider(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        consent = (await browser.get(running.asking(await running.registered()))).headers["location"]
        await browser.post(consent, data=form_of(await browser.get(consent)) | {"action": "approve"})

        signed = [cookie.value.strip('"').rpartition(".") for cookie in browser.cookies.jar if cookie.value]
        assert signed
        for payload, _, signature in signed:
            guess = hmac.digest(CLIENT_SECRET.encode(), payload.encode(), "sha256")
            assert signature != base64.b64encode(guess).decode()
