"""Sessions on our own pages: how they begin and end, what their forms must bring, and where a login may lead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from argon2.profiles import CHEAPEST
from itsdangerous import URLSafeSerializer
from pydantic import ValidationError

from opencode_gateway.oauth.requests import LIFETIME_SECONDS, PageVisit
from opencode_gateway.oauth.sessions import list_sessions, revoke_sessions
from opencode_gateway.pages.browser_cookies import SESSION_SECONDS
from opencode_gateway.pages.sessions import MAX_SESSIONS
from opencode_gateway.sign_in.one_time_codes import new_secret
from opencode_gateway.sign_in.passwords import Passwords
from support.gateway.login_pages import PASSWORD, Form, Site, browser_of, with_pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from opencode_gateway.audit import AuditEvent
    from support.gateway.authorization import AuthorizationServer

COOKIE = "__Host-session"
ASK = "/asks/a3"


@pytest.fixture
async def site(server: AuthorizationServer) -> AsyncIterator[Site]:
    events: list[AuditEvent] = []
    with_pages(server, events)
    async with browser_of(server, events) as http:
        yield Site(server, http, events)


async def to_login(site: Site, path: str = ASK) -> httpx.Response:
    """Come to a page without a session, and so to the login page."""
    sent = await site.http.get(path)
    assert sent.status_code == 303, sent.text
    assert sent.headers["location"].startswith("/login?request=")
    return await site.http.get(sent.headers["location"])


async def log_in(site: Site, path: str = ASK) -> httpx.Response:
    """Log in for a page; return what the login page answered."""
    answer = await site.send(await to_login(site, path), name="ann", password=PASSWORD)
    assert answer.status_code == 303, answer.text
    return answer


async def looks(site: Site, path: str = ASK) -> dict[str, Any]:
    answer = await site.http.get(path)
    assert answer.status_code == 200, answer.headers
    found: dict[str, Any] = answer.json()
    return found


async def is_out(site: Site) -> bool:
    return (await site.http.get(ASK)).status_code == 303


async def test_a_login_leads_straight_to_the_page_that_somebody_came_for(site: Site) -> None:
    login = await to_login(site, f"{ASK}?from=push")
    assert "client" not in login.text
    assert "relay.example.org" in login.text

    answer = await site.send(login, name="Ann ", password=PASSWORD)

    assert (answer.status_code, answer.headers["location"]) == (303, f"{ASK}?from=push")
    assert await looks(site) == {"login": "ann", "may": ["approve", "drive", "observe"]} | {"token": _any_text}
    assert site.told() == [("login", "ok", "ann"), ("page-session-started", "ok", "ann")]
    assert {event.client_name for event in site.events} == {"pages"}
    [session] = list_sessions(site.server.store)
    assert (session.client_name, session.login) == ("pages", "ann")
    assert site.events[1].details == {"page_session": session.id}


class _AnyText:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other)

    __hash__ = None  # type: ignore[assignment] # only compared


_any_text = _AnyText()


async def test_the_cookie_is_for_this_host_alone_and_for_no_script(site: Site) -> None:
    cookies = (await log_in(site)).headers.get_list("set-cookie")
    [cookie] = [each for each in cookies if each.startswith(f"{COOKIE}=")]
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
        "httponly",
        "secure",
        "path=/",
        "samesite=lax",
        f"max-age={SESSION_SECONDS}",
    }
    secret = cookie.split(";")[0].partition("=")[2]
    assert len(secret) == 43
    kept = site.server.store.path.read_bytes() + site.server.store.path.with_name("gateway.sqlite3-wal").read_bytes()
    assert secret.encode() not in kept


async def test_a_session_lasts_twelve_hours(site: Site) -> None:
    await log_in(site)
    site.server.clock.advance(SESSION_SECONDS - 1)
    await looks(site)
    site.server.clock.advance(1)
    assert await is_out(site)


async def test_a_secret_that_somebody_planted_before_the_login_gets_nothing(site: Site) -> None:
    planted = "a" * 43
    site.http.cookies.set(COOKIE, planted)
    await log_in(site)
    async with browser_of(site.server, []) as other:
        assert (await other.get(ASK, headers={"Cookie": f"{COOKIE}={planted}"})).status_code == 303


async def test_a_login_ends_the_session_that_the_browser_had(site: Site) -> None:
    await log_in(site)
    before = site.http.cookies[COOKIE]
    login = await to_login_in_another_tab(site)
    await site.send(login, name="ann", password=PASSWORD)
    assert site.http.cookies[COOKIE] != before
    assert len(list_sessions(site.server.store)) == 1
    assert ("page-session-ended", "replaced", "ann") in site.told()


async def to_login_in_another_tab(site: Site) -> httpx.Response:
    signed = site.server.provider.requests.sign_visit(PageVisit(target=ASK))
    return await site.http.get("/login", params={"request": signed})


async def test_what_the_person_may_is_asked_at_each_request(site: Site) -> None:
    await log_in(site)
    site.server.users.set_capabilities("ann", ["observe"])
    assert (await looks(site))["may"] == ["observe"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("disabled", "person-refused"),
        ("removed", "person-refused"),
        ("password", "credentials-changed"),
        ("one-time codes", "credentials-changed"),
    ],
)
async def test_a_session_ends_with_what_it_was_begun_on(site: Site, change: str, why: str) -> None:
    await log_in(site)
    users = site.server.users
    match change:
        case "disabled":
            users.set_disabled("ann", disabled=True)
        case "removed":
            users.remove("ann")
        case "password":
            users.set_password("ann", Passwords(CHEAPEST).hash("another password"))
        case _:
            users.set_totp("ann", new_secret())
    assert await is_out(site)
    assert site.told()[-1] == ("page-session-ended", why, "ann")
    if change == "disabled":
        users.set_disabled("ann", disabled=False)
        assert await is_out(site), "it does not come back"


@pytest.mark.parametrize("how", ["by its id", "of this person", "all"])
async def test_the_owner_ends_sessions(site: Site, how: str) -> None:
    await log_in(site)
    store = site.server.store
    assert revoke_sessions(store, login="bob") == 0
    [session] = list_sessions(store)
    by = {"by its id": {"session_id": session.id}, "of this person": {"login": "ann"}, "all": {}}[how]
    assert revoke_sessions(store, **by) == 1
    assert await is_out(site)


async def test_who_logs_out_is_out_and_the_cookie_of_no_more_use(site: Site) -> None:
    await log_in(site)
    secret = site.http.cookies[COOKIE]
    left = await site.http.post("/logout")
    assert (left.status_code, left.headers["location"]) == (303, "/")
    assert COOKIE not in site.http.cookies
    site.http.cookies.set(COOKIE, secret)
    assert await is_out(site)
    assert site.told()[-1] == ("page-session-ended", "logged-out", "ann")


async def test_the_oldest_of_many_sessions_makes_room(site: Site) -> None:
    await log_in(site)
    for _ in range(MAX_SESSIONS):
        site.server.clock.advance(1)
        async with browser_of(site.server, site.events) as http:
            await log_in(Site(site.server, http, site.events))
            site.server.clock.advance(600)  # the budget of attempts
    assert await is_out(site)


# Forms.


async def post(site: Site, token: str | None, path: str = ASK, **headers: str) -> httpx.Response:
    fields = {"answer": "once"} | ({} if token is None else {"token": token})
    return await site.http.post(path, data=fields, headers=headers)


async def test_a_form_of_this_session_is_taken(site: Site) -> None:
    await log_in(site)
    token = (await looks(site))["token"]
    for headers in ({}, {"Sec-Fetch-Site": "same-origin"}):
        answer = await post(site, token, **headers)
        assert (answer.status_code, answer.json()) == (200, {"answer": ["once"]})


@pytest.mark.parametrize("site_of_page", ["cross-site", "same-site", "none"])
async def test_a_form_that_another_page_sends_is_not_taken(site: Site, site_of_page: str) -> None:
    await log_in(site)
    answer = await post(site, (await looks(site))["token"], **{"Sec-Fetch-Site": site_of_page})
    assert answer.status_code == 403
    assert "Nothing was done" in answer.text


async def test_a_form_without_this_session_s_token_for_this_purpose_is_not_taken(site: Site) -> None:
    await log_in(site)
    token = (await looks(site))["token"]
    browsers = site.browsers
    [session] = list_sessions(site.server.store)
    async with browser_of(site.server, site.events) as http:
        other = Site(site.server, http, site.events)
        await log_in(other)
        of_another = (await looks(other))["token"]
    for forged in (
        None,
        "",
        token[:-1],
        of_another,
        browsers.session_token(session.id, "logout"),
        URLSafeSerializer(b"another key", salt="pages-session-form").dumps([session.id, "decide"]),
    ):
        assert (await post(site, forged)).status_code == 403, forged
    twice = await site.http.post(ASK, content=f"token={token}&token={token}".encode(), headers=FORM)
    assert twice.status_code == 403


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_a_form_of_an_earlier_session_is_not_taken(site: Site) -> None:
    await log_in(site)
    token = (await looks(site))["token"]
    await site.http.post("/logout")
    await log_in(site)
    assert (await post(site, token)).status_code == 403


async def test_a_form_that_is_none_or_too_long_is_not_taken(site: Site) -> None:
    await log_in(site)
    assert (await site.http.post(ASK, json={"token": "x"})).status_code == 415
    too_long = await site.http.post(ASK, content=b"answer=" + b"x" * 61 * 1024, headers=FORM)
    assert too_long.status_code == 413


async def test_a_form_that_comes_too_late_leads_through_the_login_back_to_its_page_and_does_nothing(
    site: Site,
) -> None:
    await log_in(site)
    token = (await looks(site))["token"]
    site.server.clock.advance(SESSION_SECONDS)
    sent = await post(site, token)
    assert sent.status_code == 303
    login = await site.http.get(sent.headers["location"])
    assert (await site.send(login, name="ann", password=PASSWORD)).headers["location"] == ASK


# Where a login leads.


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example.edu/",
        "/\\evil.example.edu/",
        "https://evil.example.edu/",
        "evil.example.edu",
        "",
        "/inbox\r\nSet-Cookie: x=y",
        "/inbox\n",
        "/\tinbox",
        "/ünbox",
        "/" + "x" * 512,
    ],
)
def test_a_login_leads_nowhere_but_to_a_path_of_ours(target: str) -> None:
    with pytest.raises(ValidationError):
        PageVisit(target=target)


async def test_only_what_we_signed_says_where_a_login_leads(site: Site) -> None:
    for signed in (
        "/asks/a3",
        URLSafeSerializer(b"another key", salt="page-visit").dumps({"target": "/asks/a3"}),
        URLSafeSerializer(site.key, salt="another-purpose").dumps({"target": "/asks/a3"}),
        URLSafeSerializer(site.key, salt="page-visit").dumps({"target": "//evil.example.edu"}),
    ):
        assert (await site.http.get("/login", params={"request": signed})).status_code == 400


async def test_a_path_that_another_site_chose_leads_back_to_this_one(site: Site) -> None:
    sent = await site.http.get("/asks/%0d%0aSet-Cookie:%20x=y?x=%0d%0aSet-Cookie:%20x=y")
    login = await site.http.get(sent.headers["location"])
    answer = await site.send(login, name="ann", password=PASSWORD)
    assert answer.headers["location"].startswith("/asks/")
    assert "x" not in site.http.cookies


async def test_a_login_page_that_lay_open_for_long_asks_again_and_another_leads_on(site: Site) -> None:
    login = await to_login(site)
    site.server.clock.advance(LIFETIME_SECONDS + 1)
    late = await site.send(login, name="ann", password=PASSWORD)
    assert late.status_code == 403
    assert "chat client" not in late.text
    again = await site.http.get(login.request.url)
    assert (await site.send(again, name="ann", password=PASSWORD)).headers["location"] == ASK


async def test_a_visit_to_a_page_gets_no_consent_page_and_no_code(site: Site) -> None:
    signed = Form((await to_login(site)).text).fields["request"]
    assert (await site.http.get("/consent", params={"request": signed})).status_code == 400


async def test_another_browser_cannot_send_the_login_form(site: Site) -> None:
    """Else somebody could be logged in as another person without seeing it, and decide in that one's name."""
    fields = Form((await to_login(site)).text).fields | {"name": "ann", "password": PASSWORD}
    async with browser_of(site.server, site.events) as other:
        await other.get("/login", params={"request": fields["request"]})
        assert (await other.post("/login", data=fields)).status_code == 403
    crossed = await site.http.post("/login", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
    assert crossed.status_code == 403
    assert COOKIE not in crossed.cookies


async def test_a_script_hears_that_it_must_log_in_and_is_led_nowhere(site: Site) -> None:
    for headers in ({"Sec-Fetch-Mode": "cors"}, {"Accept": "text/event-stream"}):
        assert (await site.http.get("/inbox", headers=headers)).status_code == 401


async def test_a_wrong_password_begins_no_session(site: Site) -> None:
    answer = await site.send(await to_login(site), name="ann", password="wrong")
    assert answer.status_code == 403
    assert "client" not in answer.text
    assert COOKIE not in site.http.cookies
    assert site.told() == [("login", "refused", "ann")]


async def test_while_the_list_of_users_cannot_be_read_nobody_looks_and_nobody_is_logged_out(site: Site) -> None:
    await log_in(site)
    path = site.server.users.path
    good = path.read_bytes()
    path.write_bytes(b"{")
    assert (await site.http.get(ASK)).status_code == 503
    path.write_bytes(good)
    await looks(site)
