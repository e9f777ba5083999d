"""A client that has a document, connected anew without a window: by whom, from where, and by whom not."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from argon2.profiles import CHEAPEST

from opencode_gateway.errors import CommandRefused
from opencode_gateway.oauth import renewals
from opencode_gateway.oauth.enrolment import close_window, list_clients, revoke_client
from opencode_gateway.oauth.sessions import list_sessions, revoke_sessions
from opencode_gateway.pages.browser_cookies import DEVICE_SECONDS
from opencode_gateway.sign_in.passwords import Passwords
from support.gateway.authorization import CALLBACK, AuthorizationServer, answer_of, proof
from support.gateway.login_pages import PASSWORD, Form, browser_of, with_pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from opencode_gateway.audit import AuditEvent
    from support.gateway.fake_documents import DocumentHost


@pytest.fixture
async def server(tmp_path: Path, host: DocumentHost) -> AsyncIterator[AuthorizationServer]:
    """With its pages, and a second person, ben."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    server = AuthorizationServer(data_dir, clients={"client_id_hosts": [host.netloc]})
    events: list[AuditEvent] = []
    with_pages(server, events)
    server.users.add("ben", server.users.load()["ann"].password_hash, ["observe"])
    yield server
    await server.close()


class Browsing:
    """One browser, with its cookies."""

    def __init__(self, server: AuthorizationServer, http: httpx.AsyncClient) -> None:
        self.server = server
        self.http = http

    async def asks(self, client_id: str, challenge: str = "") -> httpx.Response:
        """Come from the chat service's site to `/authorize`."""
        asked = {
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "code_challenge": challenge or proof().challenge,
            "code_challenge_method": "S256",
            "scope": "observe",
        }
        return await self.http.get(f"/authorize?{urlencode(asked)}", headers={"sec-fetch-site": "cross-site"})

    async def logs_in(self, asked: httpx.Response, name: str = "ann") -> httpx.Response:
        """Log in and come to the consent page, or to what is there instead."""
        assert asked.status_code == 302, asked.text
        shown = await self.http.get(asked.headers["location"])
        answer = await self.sends(shown, name=name, password=PASSWORD)
        assert answer.status_code == 303, answer.text
        return await self.http.get(answer.headers["location"])

    async def connects(self, client_id: str, name: str = "ann") -> dict[str, str]:
        """Go the whole way."""
        pkce = proof()
        consent = await self.logs_in(await self.asks(client_id, pkce.challenge), name)
        assert consent.status_code == 200, consent.text
        sent = await self.sends(consent, decision="allow", **{"capability-observe": "yes"})
        assert sent.status_code == 303, sent.text
        code = answer_of(sent.headers["location"])["code"]
        given = await self.server.exchange(client_id, code, pkce.verifier)
        assert given.status_code == 200, given.text
        tokens: dict[str, str] = given.json()
        return tokens

    async def sends(self, shown: httpx.Response, **fields: str) -> httpx.Response:
        return await self.http.post(shown.request.url.path, data={**Form(shown.text).fields, **fields})


@pytest.fixture
async def browser(server: AuthorizationServer) -> AsyncIterator[Browsing]:
    async with browser_of(server, []) as http:
        yield Browsing(server, http)


async def connected(server: AuthorizationServer, browser: Browsing, host: DocumentHost, name: str = "ann") -> str:
    """Return the id of a client that was connected in a window, which is closed now."""
    client_id = host.put_client("/client.json")
    server.open_window()
    await browser.connects(client_id, name)
    close_window(server.store, now=server.clock())
    return client_id


async def assert_needs_a_window(browser: Browsing, client_id: str) -> None:
    answer = await browser.asks(client_id)
    assert answer.status_code == 400
    assert "clients allow" in answer.json()["error_description"]


async def test_a_person_connects_a_client_anew_from_the_same_browser_without_a_window(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = await connected(server, browser, host)
    server.clock.advance(100 * 24 * 3600)  # every token of it is over

    tokens = await browser.connects(client_id)

    assert await server.is_good(tokens["access_token"])


async def test_that_goes_on_for_as_long_as_they_come_back(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = await connected(server, browser, host)
    for _ in range(3):
        server.clock.advance(DEVICE_SECONDS - 60)
        await browser.connects(client_id)
    assert [client.id for client in list_clients(server.store)] == [client_id]

    server.clock.advance(DEVICE_SECONDS + 60)

    await assert_needs_a_window(browser, client_id)


async def test_a_client_that_ended_its_session_can_be_connected_anew(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = host.put_client("/client.json")
    server.open_window()
    tokens = await browser.connects(client_id)
    close_window(server.store, now=server.clock())
    await server.http.post("/revoke", data={"client_id": client_id, "token": tokens["access_token"]})
    server.clock.advance(25 * 3600)

    await browser.connects(client_id)


async def test_a_stranger_needs_the_window_and_makes_nobody_fetch_anything(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = await connected(server, browser, host)
    host.asked.clear()
    async with browser_of(server, []) as http:
        stranger = Browsing(server, http)

        await assert_needs_a_window(stranger, client_id)
        http.cookies.set("__Host-device", browser.http.cookies["__Host-device"][:-8] + "forged00")
        await assert_needs_a_window(stranger, client_id)

    assert host.asked == []


async def test_a_client_that_this_person_never_let_in_needs_the_window(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    await connected(server, browser, host)
    host.asked.clear()

    await assert_needs_a_window(browser, host.put_client("/other.json"))

    assert host.asked == []


async def test_what_another_person_let_in_needs_the_window(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = await connected(server, browser, host)
    other = host.put_client("/other.json")
    server.open_window()
    await browser.connects(other, "ben")  # who is from now on the last who logged in here
    close_window(server.store, now=server.clock())

    await assert_needs_a_window(browser, client_id)
    await browser.connects(other, "ben")


async def test_a_cookie_alone_lets_nobody_in_and_its_person_alone_completes_it(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = await connected(server, browser, host)
    before = len(list_sessions(server.store))

    asked = await browser.asks(client_id)
    shown = await browser.logs_in(asked, "ben")

    assert shown.status_code == 403
    assert "For ben it is new" in shown.text
    assert "clients allow" in shown.text
    assert 'name="decision"' not in shown.text
    # Nor does a form help that a page of another request has had.
    with pytest.raises(CommandRefused, match="whoever connected it before"):
        server.consent(asked.headers["location"], login="ben", capabilities=["observe"])
    assert len(list_sessions(server.store)) == before


async def test_in_a_window_everybody_completes_it(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = await connected(server, browser, host)
    server.open_window()

    await browser.connects(client_id, "ben")


@pytest.mark.parametrize("how", ["the client", "a session", "a person's sessions", "all sessions"])
async def test_what_the_owner_took_back_needs_the_window(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost, how: str
) -> None:
    client_id = await connected(server, browser, host)
    asked = await browser.asks(client_id)
    if how == "the client":
        revoke_client(server.store, client_id)
    elif how == "a session":
        revoke_sessions(server.store, session_id=list_sessions(server.store)[0].id)
    else:
        revoke_sessions(server.store, login="ann" if how == "a person's sessions" else None)
    host.asked.clear()

    await assert_needs_a_window(browser, client_id)
    with pytest.raises(
        CommandRefused, match="no longer registered"
    ):  # who was on the login page when it was taken back
        server.consent(asked.headers["location"])

    assert host.asked == []


async def test_a_person_who_may_no_longer_log_in_renews_nothing(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = await connected(server, browser, host)
    server.users.set_disabled("ann", disabled=True)
    asked = await browser.asks(client_id)

    with pytest.raises(CommandRefused):
        server.consent(asked.headers["location"])


async def test_only_so_much_is_remembered_and_the_oldest_makes_room(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewals, "MAX_RENEWALS", 2)
    server.open_window()
    ids = [host.put_client(f"/{number}.json") for number in range(3)]
    for client_id in ids:
        await browser.connects(client_id)
        server.clock.advance(1)
    close_window(server.store, now=server.clock())

    await assert_needs_a_window(browser, ids[0])
    for client_id in ids[1:]:
        await browser.connects(client_id)


def test_the_cookie_and_what_is_remembered_last_equally_long() -> None:
    assert renewals.RENEWAL_SECONDS == DEVICE_SECONDS


async def test_a_password_is_needed_all_the_same(
    server: AuthorizationServer, browser: Browsing, host: DocumentHost
) -> None:
    client_id = await connected(server, browser, host)
    server.users.set_password("ann", Passwords(CHEAPEST).hash("another password"))
    asked = await browser.asks(client_id)
    shown = await browser.http.get(asked.headers["location"])

    answer = await browser.sends(shown, name="ann", password=PASSWORD)

    assert answer.status_code == 403
