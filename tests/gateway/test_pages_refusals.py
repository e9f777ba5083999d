"""The login and consent pages: what they refuse, of strangers, of forged forms, and during a storm."""

from __future__ import annotations

import asyncio
import html
import logging
import string
from typing import TYPE_CHECKING

import pytest
from argon2.profiles import CHEAPEST
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opencode_gateway.oauth.enrolment import list_clients, revoke_client
from opencode_gateway.oauth.requests import LIFETIME_SECONDS
from opencode_gateway.pages.browser_cookies import DEVICE_SECONDS
from opencode_gateway.sign_in import throttle as budgets
from opencode_gateway.sign_in.one_time_codes import new_secret
from opencode_gateway.sign_in.passwords import Passwords
from opencode_gateway.sign_in.throttle import window_code
from support.gateway.login_pages import EVIL, PASSWORD, Form, Site, browser_of, with_pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_gateway.audit import AuditEvent
    from support.gateway.authorization import AuthorizationServer

_BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


@pytest.fixture
async def site(server: AuthorizationServer) -> AsyncIterator[Site]:
    events: list[AuditEvent] = []
    with_pages(server, events)
    async with browser_of(server, events) as http:
        yield Site(server, http, events)


async def test_a_form_that_another_site_makes_a_browser_send_is_refused(site: Site) -> None:
    consent = await site.log_in()
    form = Form(consent.text)
    # What an attacker can have: the request, and tokens that were made for a browser of his own, where he logs in.
    async with browser_of(site.server, []) as http:
        attackers = Site(site.server, http, [])
        site.server.users.add("eve", Passwords(CHEAPEST).hash(PASSWORD), ["observe"])
        shown = await http.get("/login", params={"request": form.fields["request"]})
        asked = await http.get((await attackers.send(shown, name="eve", password=PASSWORD)).headers["location"])
        foreign = [Form(page.text).fields["token"] for page in (shown, asked)]
    own_login_page = await site.http.get("/login", params={"request": form.fields["request"]})
    for token in (None, "", "x", *foreign, Form(own_login_page.text).fields["token"]):
        refused = await site.send(consent, decision="allow", **{"capability-drive": "yes"}, token=token)
        assert refused.status_code == 403
        assert "This form does not belong to this page" in refused.text
    site.http.headers["Sec-Fetch-Site"] = "cross-site"
    assert (await site.send(consent, decision="allow")).status_code == 403
    site.http.headers["Sec-Fetch-Site"] = "same-site"
    assert (await site.send(consent, decision="allow")).status_code == 403
    site.http.headers["Sec-Fetch-Site"] = "same-origin"
    assert (await site.send(consent, decision="allow")).status_code == 303


async def test_a_forged_login_is_refused_before_the_password_is_looked_at(site: Site) -> None:
    login = await site.arrive()
    async with browser_of(site.server, []) as attackers:
        shown = await attackers.get("/login", params={"request": Form(login.text).fields["request"]})
    for token in ("x", Form(shown.text).fields["token"]) * budgets.ADDRESS.attempts:
        assert (await site.send(login, name="ann", password=PASSWORD, token=token)).status_code == 403
    assert site.events == []
    assert (await site.send(login, name="ann", password=PASSWORD)).status_code == 303


async def test_a_login_counts_for_its_own_request_and_browser_and_for_ten_minutes(site: Site) -> None:
    consent = await site.log_in()
    request = Form(consent.text).fields["request"]
    other = Form((await site.arrive()).text).fields["request"]
    back = await site.http.get("/consent", params={"request": other})
    assert (back.status_code, back.headers["location"].split("=")[0]) == (303, "/login?request")
    async with browser_of(site.server, []) as thief:
        stolen = site.http.cookies["__Host-login"]
        back = await thief.get("/consent", params={"request": request}, headers={"Cookie": f"__Host-login={stolen}"})
        assert back.status_code == 303
        await thief.get("/login", params={"request": request})  # and with a mark of his own
        kept = f"__Host-browser={thief.cookies['__Host-browser']}; __Host-login={stolen}"
        back = await thief.get("/consent", params={"request": request}, headers={"Cookie": kept})
        assert back.status_code == 303
    assert (await site.http.get("/consent", params={"request": request})).status_code == 200
    site.server.clock.advance(LIFETIME_SECONDS + 1)
    for answer in (
        await site.http.get("/consent", params={"request": request}),
        await site.send(consent, decision="allow"),
    ):
        assert answer.status_code == 400
        assert "This request is over" in answer.text
        assert "Start again from your chat client" in answer.text


async def test_an_answer_is_given_once(site: Site) -> None:
    consent = await site.log_in()
    assert (await site.send(consent, decision="allow")).status_code == 303
    assert "__Host-login" not in site.http.cookies
    again = await site.send(consent, decision="allow")
    assert again.status_code == 403
    assert "This step is over" in again.text


async def test_of_two_clicks_at_once_one_is_answered(site: Site) -> None:
    consent = await site.log_in()

    answers = await asyncio.gather(*(site.send(consent, decision="allow") for _ in range(2)))

    assert sorted(answer.status_code for answer in answers) == [303, 403]
    assert site.told().count(("consent", "allowed", "ann")) == 1


async def test_an_answer_that_could_not_be_written_down_can_be_given_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = await site.log_in()
    with monkeypatch.context() as locked:
        locked.setattr("opencode_gateway.store.MAX_WAITING", 0)
        assert (await site.send(consent, decision="allow")).status_code == 503

    assert (await site.send(consent, decision="allow")).status_code == 303


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_browser_that_keeps_its_cookies_answers_once_too(site: Site, decision: str) -> None:
    consent = await site.log_in()
    kept = "; ".join(f"{name}={value}" for name, value in site.http.cookies.items())
    assert (await site.send(consent, decision=decision)).status_code == 303
    fields = {**Form(consent.text).fields, "capability-drive": "yes", "decision": "allow"}
    async with browser_of(site.server, []) as http:
        again = await http.post("/consent", data=fields, headers={"Cookie": kept})
        shown = await http.get("/consent", params={"request": fields["request"]}, headers={"Cookie": kept})
    for answer in (again, shown):
        assert answer.status_code == 403
        assert "This step is over" in answer.text
    # Another request of the same person's goes on.
    assert (await site.send(await site.log_in(), decision="allow")).status_code == 303


@pytest.mark.parametrize("change", ["disabled", "removed", "password", "totp"])
async def test_a_login_is_void_once_the_person_was_changed(site: Site, change: str) -> None:
    consent = await site.log_in()
    users = site.server.users
    if change == "disabled":
        users.set_disabled("ann", disabled=True)
    elif change == "removed":
        users.add("bob", Passwords(CHEAPEST).hash(PASSWORD), ["observe"])
        users.remove("ann")
    elif change == "password":
        users.set_password("ann", Passwords(CHEAPEST).hash("another password"))
    else:
        users.set_totp("ann", new_secret())
    answer = await site.send(consent, decision="allow")
    assert answer.status_code == 403
    assert site.told() == [("login", "ok", "ann")]


async def test_a_client_that_was_revoked_meanwhile_gets_nothing(site: Site) -> None:
    await site.send(await site.log_in(), decision="allow")
    consent = await site.log_in()
    (client,) = list_clients(site.server.store)
    revoke_client(site.server.store, client.id)
    answer = await site.send(consent, decision="allow")
    assert answer.status_code == 409
    assert "connect it anew" in answer.text
    assert site.told()[-1] == ("consent", "refused", "ann")


async def test_a_browser_without_cookies_is_told_what_it_lacks(site: Site) -> None:
    login = await site.arrive()
    site.http.cookies.clear()
    answer = await site.send(login, name="ann", password=PASSWORD)
    assert answer.status_code == 400
    assert "needs cookies" in answer.text


async def test_a_second_tab_does_not_spoil_the_first(site: Site) -> None:
    first = await site.arrive()
    second = await site.arrive()
    assert (await site.send(first, name="ann", password=PASSWORD)).status_code == 303
    assert (await site.send(second, name="ann", password=PASSWORD)).status_code == 303


@pytest.mark.parametrize("request_", ["", "x", "x" * 50_000, "eyJ9.x.y", "\x00"])
async def test_what_is_no_request_of_ours_is_answered_with_the_next_step(site: Site, request_: str) -> None:
    for path in ("/login", "/consent"):
        answer = await site.http.get(path, params={"request": request_})
        assert answer.status_code == 400
        assert "Start again from your chat client" in answer.text


async def test_a_request_that_was_changed_is_none(site: Site) -> None:
    request = Form((await site.arrive()).text).fields["request"]
    for at in (0, len(request) // 2, -1):
        # Half an alphabet on: the last bits of the last letter count for nothing.
        letter = _BASE64[(_BASE64.find(request[at]) + 32) % 64]
        changed = request[:at] + letter + request[at:][1:]
        assert (await site.http.get("/login", params={"request": changed})).status_code == 400


async def test_a_storm_is_answered_with_a_wait_and_the_owner_has_a_way_past_it(site: Site) -> None:
    login = await site.arrive()
    known = browser_of(site.server, [])
    seen = await Site(site.server, known, []).send(
        await known.get("/login", params={"request": Form(login.text).fields["request"]}),
        name="ann",
        password=PASSWORD,
    )
    assert seen.status_code == 303
    statuses = [
        (await site.send(login, name="ann", password="guess")).status_code
        for _ in range(budgets.ADDRESS.attempts + 20)
    ]
    assert statuses == [403] * budgets.ADDRESS.attempts + [429] * 20
    held_up = await site.send(login, name="ann", password=PASSWORD)
    assert held_up.status_code == 429
    assert 1 <= int(held_up.headers["retry-after"]) <= budgets.ADDRESS.seconds
    assert "Wait 1 minute, then try again" in held_up.text
    assert "sudo opencode-gateway clients allow" in held_up.text
    # Audit lines about it are few.
    assert site.told().count(("login", "throttled", "ann")) == 5
    # From another address, while the account's own budget lasts:
    async with browser_of(site.server, [], "198.51.100.9") as elsewhere:
        again = await elsewhere.get("/login", params={"request": Form(login.text).fields["request"]})
        assert (await Site(site.server, elsewhere, []).send(again, name="ann", password=PASSWORD)).status_code == 303
    # On a device that is known, from the very same address:
    again = await known.get("/login", params={"request": Form(login.text).fields["request"]})
    assert (await Site(site.server, known, []).send(again, name="ann", password=PASSWORD)).status_code == 303
    await known.aclose()
    # On this one, with the code of the window that is open.
    assert (await site.send(held_up, name="ann", password=PASSWORD, window="AAAA-AAAA")).status_code == 429
    opened_at = site.server.provider.clients.window()
    assert opened_at is not None
    code = window_code(site.key, opened_at).lower().replace("-", " ")
    mistyped = await site.send(held_up, name="ann", password="wrong", window=code)
    assert mistyped.status_code == 403
    assert "window" in Form(mistyped.text).fields, "it can be typed again"
    assert (await site.send(mistyped, name="ann", password=PASSWORD, window=code)).status_code == 303


async def test_a_browser_is_known_for_half_a_year_and_only_for_who_logged_in_from_it(site: Site) -> None:
    await site.log_in()

    async def with_the_address_used_up(name: str) -> int:
        site.clients.clear()  # nobody has granted it anything: it registers anew
        login = await site.arrive()
        async with browser_of(site.server, []) as http:
            stranger = Site(site.server, http, [])
            request = Form(login.text).fields["request"]
            for _ in range(budgets.ADDRESS.attempts):
                shown = await http.get("/login", params={"request": request})
                assert (await stranger.send(shown, name="nobody", password="guess")).status_code == 403
        return (await site.send(login, name=name, password=PASSWORD)).status_code

    site.server.users.add("bob", Passwords(CHEAPEST).hash(PASSWORD), ["observe"])
    assert await with_the_address_used_up("bob") == 429
    site.server.clock.advance(DEVICE_SECONDS)
    assert await with_the_address_used_up("ann") == 303
    site.server.clock.advance(DEVICE_SECONDS + 1)
    assert await with_the_address_used_up("ann") == 429


async def test_what_was_signed_for_one_purpose_is_no_good_for_another(site: Site) -> None:
    consent = await site.log_in()
    form = Form(consent.text).fields
    browser = f"__Host-browser={site.http.cookies['__Host-browser']}"
    device = site.http.cookies["__Host-device"]
    async with browser_of(site.server, []) as http:
        for other in (form["token"], form["request"], device):
            kept = {"Cookie": f"{browser}; __Host-login={other}"}
            shown = await http.get("/consent", params={"request": form["request"]}, headers=kept)
            assert (shown.status_code, shown.headers["location"].split("?")[0]) == (303, "/login")
    for other in (device, site.http.cookies["__Host-login"], form["request"]):
        assert (await site.send(consent, decision="allow", token=other)).status_code == 403


async def test_no_window_no_code(site: Site) -> None:
    login = await site.arrive()
    opened_at = site.server.provider.clients.window()
    assert opened_at is not None
    for _ in range(budgets.ADDRESS.attempts):
        await site.send(login, name="ann", password="guess")
    with site.server.store.transaction() as db:
        db.execute("DELETE FROM enrolment")
    code = window_code(site.key, opened_at)
    assert (await site.send(login, name="ann", password=PASSWORD, window=code)).status_code == 429


async def test_without_users_and_with_a_damaged_file_the_page_says_what_to_do(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    login = await site.arrive()
    address = str(login.request.url)
    site.server.users.path.write_text('{"ann": {"password": "secret"}}')
    for answer in (await site.http.get(address), await site.send(login, name="ann", password=PASSWORD)):
        assert answer.status_code == 503
        assert "Nobody can log in at the moment" in answer.text
        # The container's own log is nowhere but in the journal.
        assert "sudo opencode-gateway doctor" in answer.text
        assert "secret" not in answer.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    site.server.users.path.write_text("{}")
    answer = await site.http.get(address)
    assert answer.status_code == 503
    assert "sudo opencode-gateway users add NAME" in answer.text


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("", b"a=b", 415),
        ("application/x-www-form-urlencoded", b"a=" + b"b" * 33_000, 413),
        ("application/x-www-form-urlencoded", b"a&" * 1000, 400),
        ("application/x-www-form-urlencoded", b"\xff\xfe%ff%fe=%00%zz&%", 400),
    ],
)
async def test_what_is_no_form_of_ours_is_refused(site: Site, kind: str, body: bytes, status: int) -> None:
    for path in ("/login", "/consent"):
        answer = await site.http.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")


async def test_a_form_of_more_fields_than_any_page_has_is_not_read(site: Site) -> None:
    login = await site.arrive()
    more: dict[str, str | None] = {f"field-{number}": "" for number in range(20)}
    answer = await site.send(login, name="ann", password=PASSWORD, **more)
    assert answer.status_code == 400
    assert "This form is not complete" in answer.text
    assert site.events == []
    assert (await site.send(login, name="ann", password=PASSWORD)).status_code == 303


async def test_what_a_stranger_typed_or_called_his_client_is_never_markup(site: Site) -> None:
    login = await site.arrive(client_name=EVIL)
    wrong = await site.send(login, name=EVIL, password=EVIL, window=EVIL)
    consent = await site.log_in(client_name=EVIL)
    for answer in (login, wrong, consent):
        assert not Form(answer.text).tags & {"script", "img"}
        assert "{{7*7}}" in html.unescape(answer.text) or "49" not in answer.text


_TEXT = st.text(max_size=200) | st.sampled_from([EVIL, "\x00", "\ud7ff", "%", "&=;", "a" * 5000, "ann", PASSWORD])
_NAMES = st.sampled_from(["request", "token", "name", "password", "code", "window", "decision", "capability-drive"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/login", "/consent"]),
    changed=st.dictionaries(_NAMES, _TEXT, max_size=8),
    kept=st.booleans(),
    cookies=st.dictionaries(
        st.sampled_from(["__Host-browser", "__Host-login", "__Host-device"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=';,"\\'), max_size=60),
        max_size=3,
    ),
)
async def test_nothing_that_can_be_sent_breaks_the_pages_or_shows_up_in_them_unescaped(
    site: Site, path: str, changed: dict[str, str], kept: bool, cookies: dict[str, str]
) -> None:
    consent = await site.log_in(client_name=EVIL)
    fields = Form(consent.text).fields if kept else {}
    sent: dict[str, str] = {**fields, **changed}
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
    for answer in (
        await site.http.post(path, data=sent, headers=headers),
        await site.http.get(path, params=sent, headers=headers),
    ):
        assert answer.status_code < 500
        if answer.status_code == 303:
            assert answer.headers["location"].startswith(("/login?", "/consent?", "https://claude.ai/"))
            continue
        assert not Form(answer.text).tags & {"script", "img"}
        for value in changed.values():
            if set(value) & set("<>\"'") and len(value) > 8:  # a sign or two are in our own markup
                assert value not in answer.text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=400))
async def test_no_body_breaks_the_pages(site: Site, body: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/login", "/consent"):
        assert 400 <= (await site.http.post(path, content=body, headers=headers)).status_code < 500
