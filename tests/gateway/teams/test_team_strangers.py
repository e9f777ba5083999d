"""What somebody who has not logged in at the provider can have the gateway do: little, and seldom."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.pages import provider as pages
from opencode_gateway.sign_in.provider import CALLBACK_PATH
from opencode_gateway.sign_in.throttle import Budget
from opencode_gateway.store import FILE_NAME
from support.gateway.authorization import answer_of, proof

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

    from support.gateway.fake_identity_provider import FakeIdentityProvider
    from support.gateway.team_gateway import Make, TeamGateway


async def come_back(running: TeamGateway, client_id: str, browser: httpx2.AsyncClient) -> httpx2.Response:
    """Log in at the provider for a new request, and return what one sees then."""
    return await running.visit(running.asking(client_id, proof().challenge), browser=browser, answer=None)


async def test_a_consent_that_is_no_plain_form_is_not_read(gateway: Make) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n\\ud800\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x; charset=unicode_escape"
    async with gateway() as running:
        answer = await running.http.post("/consent", content=body, headers={"Content-Type": kind})

        assert answer.status_code == 415


async def test_there_is_no_login_page_here(gateway: Make) -> None:
    async with gateway() as running:
        asked = await running.http.get(running.asking(await running.registered()))

        assert (await running.http.post(asked.headers["location"])).status_code == 405


@pytest.mark.parametrize("query", [{"error": "e", "error_description": "flood"}, {"state": "flood", "code": "flood"}])
async def test_a_callback_of_no_login_is_not_logged(
    query: dict[str, str], gateway: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with gateway() as running:
        shown = await running.http.get(CALLBACK_PATH, params=query)

        assert shown.status_code == 403
        assert "flood" not in shown.text
        assert not running.events
    assert "flood" not in caplog.text.replace(str(shown.url), "")


async def test_nothing_is_stored_before_somebody_is_let_in(
    gateway: Make, provider: FakeIdentityProvider, tmp_path: Path
) -> None:
    provider.claims["email"] = "eve@example.org"
    async with gateway() as running, running.browser() as browser:
        client_id = await running.registered()
        before = stored(tmp_path)
        assert (await come_back(running, client_id, browser)).status_code == 403
        provider.denies = True
        await running.visit(running.asking(client_id, proof().challenge), browser=browser)

        assert stored(tmp_path) == before


async def test_lines_about_people_who_are_not_let_in_are_few(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running:
        client_id = await running.registered()
        running.events.clear()
        provider.denies = True
        for _ in range(40):
            await running.visit(running.asking(client_id))

        assert 20 <= len(running.events) <= 35
        assert {event.outcome for event in running.events} == {"denied"}
        provider.denies = False
        await running.log_in(client_id)
        assert [(event.event, event.outcome) for event in running.events[-2:]] == [
            ("login", "ok"),
            ("consent", "allowed"),
        ]


async def test_a_login_that_was_refused_is_over(gateway: Make, provider: FakeIdentityProvider) -> None:
    provider.claims["email"] = "eve@example.org"
    async with gateway() as running, running.browser() as browser:
        client_id = await running.registered()
        sent = await running.visit(running.asking(client_id), browser=browser, until=f"{running.url}{CALLBACK_PATH}")
        assert (await browser.get(sent.headers["location"])).status_code == 403
        asked = len(provider.called)

        again = await browser.get(sent.headers["location"])

        assert again.status_code == 403
        assert "This step is over" in again.text
        assert len(provider.called) == asked


async def test_the_provider_is_not_asked_for_strangers_without_end(
    gateway: Make, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_QUESTIONS", Budget(3, 5))
    async with gateway() as running, running.browser() as browser:
        client_id = await running.registered()
        for _ in range(5):
            assert (await come_back(running, client_id, browser)).status_code == 200, "who is let in costs nothing"
        provider.claims["email"] = "eve@example.org"
        statuses = [(await come_back(running, client_id, browser)).status_code for _ in range(5)]
        asked = len(provider.called)

        assert statuses == [403] * 3 + [429] * 2
        provider.claims["email"] = "ann@example.org"
        assert (await come_back(running, client_id, browser)).status_code == 429
        assert len(provider.called) == asked
        running.clock.advance(5)
        assert (await come_back(running, client_id, browser)).status_code == 200


async def test_what_is_kept_of_logins_that_were_not_answered_is_bounded(
    gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_MAX_PROOFS", 2)
    async with gateway() as running, running.browser() as browser:
        client_id = await running.registered()
        shown = [await come_back(running, client_id, browser) for _ in range(3)]
        cookies = dict(browser.cookies)

        first, _, last = [await browser.get(page.url) for page in shown]

        # Sent to log in again, nothing else.
        assert (first.status_code, last.status_code) == (303, 200)
        assert first.headers["location"].startswith("/login?request=")
        assert cookies


async def test_the_disk_holds_no_token_and_no_code_in_the_clear(
    gateway: Make, provider: FakeIdentityProvider, tmp_path: Path
) -> None:
    for mode in ("github", "oidc"):
        async with gateway(mode) as running:
            client_id, tokens = await running.log_in()
            code = await running.code(client_id, proof().challenge)
            assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200
            secrets = [code, tokens["access_token"], tokens["refresh_token"], *provider.given]
            with running.store.transaction(write=False) as db:
                assert db.execute("SELECT count(*) FROM sessions WHERE renewal IS NOT NULL").fetchone()[0]

        written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith(FILE_NAME))
        assert len(provider.given) >= 2
        for secret in secrets:
            assert secret.encode() not in written


async def test_a_state_says_nothing_but_the_request(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running, running.browser() as browser:
        asked = await browser.get(running.asking(await running.registered()))
        request = answer_of(asked.headers["location"])["request"]
        await browser.get(asked.headers["location"])
        sent = await browser.get((await browser.get(asked.headers["location"])).headers["location"])

        state = answer_of(sent.headers["location"])["state"]
        mark = browser.cookies["__Host-browser"]
        assert state.endswith(f".{request}")
        assert mark not in state


def stored(directory: Path) -> list[str]:
    """Return all that the database holds."""
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as database:
        return list(database.iterdump())
