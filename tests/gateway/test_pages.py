"""The login and consent pages: what they show, accept and say. See also `test_browser.py`."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pyotp
import pytest

from opencode_gateway.oauth.requests import Pending
from opencode_gateway.sign_in.one_time_codes import new_secret
from support.gateway.authorization import AuthorizationServer, answer_of, proof
from support.gateway.login_pages import PASSWORD, Form, Site, browser_of, with_pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opencode_gateway.audit import AuditEvent


@pytest.fixture
async def site(server: AuthorizationServer) -> AsyncIterator[Site]:
    events: list[AuditEvent] = []
    with_pages(server, events)
    async with browser_of(server, events) as http:
        yield Site(server, http, events)


async def test_the_whole_way_ends_at_the_client_with_a_code_that_is_good(site: Site) -> None:
    client_id = await site.server.registered(client_name="Claude")
    pkce = proof()
    asked = await site.server.authorize(client_id, pkce.challenge, scope="observe drive")
    login = await site.http.get(asked.headers["location"])
    assert login.status_code == 200
    answer = await site.send(login, name="Ann ", password=PASSWORD)
    assert answer.status_code == 303
    consent = await site.http.get(answer.headers["location"])
    assert consent.status_code == 200
    assert Form(consent.text).checkboxes == {"capability-observe": True, "capability-drive": True}
    sent = await site.send(consent, decision="allow", **{"capability-drive": None})
    assert sent.status_code == 303
    answered = answer_of(sent.headers["location"])
    assert (answered["state"], answered["iss"]) == ("st&te", site.server.configuration.public_url)
    tokens = (await site.server.exchange(client_id, answered["code"], pkce.verifier)).json()
    assert tokens["scope"] == "observe"
    assert site.told() == [("login", "ok", "ann"), ("consent", "allowed", "ann")]
    assert site.events[0].address == "203.0.113.7"
    assert site.events[1].details == {"capabilities": ["observe"]}


async def test_who_says_no_sends_the_client_access_denied(site: Site) -> None:
    sent = await site.send(await site.log_in(), decision="deny")
    assert sent.status_code == 303
    assert answer_of(sent.headers["location"])["error"] == "access_denied"
    assert site.told()[-1] == ("consent", "denied", "ann")


async def test_no_is_the_first_button_which_enter_presses(site: Site) -> None:
    buttons = Form((await site.log_in()).text).buttons
    assert [button["value"] for button in buttons] == ["deny", "allow"]
    assert not any("autofocus" in button for button in buttons)


async def test_a_form_without_a_decision_grants_nothing(site: Site) -> None:
    consent = await site.log_in()
    for decision in (None, "", "yes", "ALLOW"):
        assert (await site.send(consent, decision=decision)).status_code == 400


async def test_to_allow_nothing_is_asked_about_again(site: Site) -> None:
    consent = await site.log_in()
    again = await site.send(consent, decision="allow", **{"capability-observe": None, "capability-drive": None})
    assert again.status_code == 400
    assert "Tick at least one" in again.text
    assert (await site.send(again, decision="allow", **{"capability-observe": "yes"})).status_code == 303


async def test_a_capability_that_was_not_asked_for_or_that_the_person_lacks_cannot_be_ticked_in(site: Site) -> None:
    site.server.users.set_capabilities("ann", ["observe", "approve"])
    consent = await site.log_in()
    assert Form(consent.text).checkboxes == {"capability-observe": True}
    ticked = {"capability-approve": "yes", "capability-drive": "yes"}
    assert (await site.send(consent, decision="allow", **ticked)).status_code == 303
    assert site.events[-1].details == {"capabilities": ["observe"]}


async def test_who_has_nothing_that_is_asked_for_is_told_so(site: Site) -> None:
    site.server.users.set_capabilities("ann", ["approve"])
    refused = await site.log_in()
    assert refused.status_code == 403
    assert "You may not do what this client asks for" in refused.text


async def test_the_consent_page_names_client_redirect_and_resource_and_who_says_what_the_client_is_called(
    site: Site,
) -> None:
    shown = (await site.log_in(client_name="Claude")).text
    for words in ("Claude", "a name that it chose itself", "claude.ai", site.server.configuration.resource, "ann"):
        assert words in shown
    pending = Pending(
        client_id="https://chat.example.net/oauth/client.json",
        client_name="Claude",
        document=True,
        redirect_uri="https://chat.example.net:8443/callback",
        challenge="x" * 43,
        capabilities=("observe",),
        resource=site.server.configuration.resource,
    )
    login = await site.http.get("/login", params={"request": site.server.provider.requests.sign(pending)})
    answer = await site.send(login, name="ann", password=PASSWORD)
    shown = (await site.http.get(answer.headers["location"])).text
    assert re.search(r"named so by <span class=\"host\">chat\.example\.net</span>", shown)
    assert "chat.example.net:8443" in shown
    assert "chose itself" not in shown


@pytest.mark.parametrize("page", ["login", "consent", "problem"])
async def test_every_page_keeps_out_frames_scripts_and_caches(site: Site, page: str) -> None:
    answer = await {"login": site.arrive, "consent": site.log_in, "problem": site.nothing}[page]()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    expected = {"default-src": "'none'", "style-src": "'self'", "frame-ancestors": "'none'", "base-uri": "'none'"}
    # Of the consent page, see `rendering.page`.
    assert policy == (expected if page == "consent" else {**expected, "form-action": "'self'"})
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    parsed = Form(answer.text)
    assert not parsed.tags & {"script", "style", "iframe", "object", "base"}
    assert not {name for name in parsed.attributes if name.startswith("on") or name == "style"}
    assert set(parsed.ids) <= parsed.labels, "each field has its label"
    assert len(parsed.ids) == len(set(parsed.ids))


async def test_the_stylesheet_is_kept_by_browsers_until_it_changes(site: Site) -> None:
    address = re.search(r'<link rel="stylesheet" href="([^"]+)">', (await site.arrive()).text)
    assert address
    styles = await site.http.get(html.unescape(address[1]))
    assert styles.headers["content-type"].startswith("text/css")
    assert "immutable" in styles.headers["cache-control"]
    assert "?" in address[1]


async def test_cookies_are_for_this_host_alone_and_no_script_sees_them(site: Site) -> None:
    login = await site.arrive()
    set_cookies = login.headers.get_list("set-cookie")
    set_cookies += (await site.send(login, name="ann", password=PASSWORD)).headers.get_list("set-cookie")
    by_name = {cookie.split("=", 1)[0]: cookie for cookie in set_cookies}
    assert by_name.keys() == {"__Host-browser", "__Host-login", "__Host-device"}
    for cookie in by_name.values():
        assert {"HttpOnly", "Secure", "Path=/"} <= set(cookie.split("; "))
        assert "domain" not in cookie.lower()
        assert "SameSite=lax" in cookie


@pytest.mark.parametrize("mark", ["x", "x" * 44, '"' + "x" * 41 + '"'])
async def test_a_mark_that_was_not_made_here_is_replaced(site: Site, mark: str) -> None:
    login = await site.arrive()
    answer = await site.http.get(str(login.request.url), headers={"Cookie": f"__Host-browser={mark}"})
    (cookie,) = answer.headers.get_list("set-cookie")
    assert re.fullmatch(r"__Host-browser=[A-Za-z0-9_-]{43}", cookie.split(";")[0])


async def test_on_plain_http_of_loopback_cookies_work_without_the_prefix(tmp_path: Path) -> None:
    server = AuthorizationServer(tmp_path, public_url="http://127.0.0.1:8790")
    with_pages(server, [])
    async with browser_of(server, []) as http:
        consent = await Site(server, http, []).log_in()
        assert consent.status_code == 200
        assert {cookie.name for cookie in http.cookies.jar} == {"browser", "login", "device"}
    await server.close()


async def test_a_wrong_password_is_said_without_saying_what_was_wrong(site: Site) -> None:
    login = await site.arrive()
    said = set()
    for name, password in (("ann", "wrong password"), ("bob", PASSWORD), ("bob", "wrong password")):
        answer = await site.send(login, name=name, password=password)
        assert answer.status_code == 403
        said.add(answer.text.replace(name, "NAME").replace(Form(answer.text).fields["token"], ""))
        assert password not in answer.text
        assert "no-store" in answer.headers["cache-control"]
    assert len(said) == 1
    assert (await site.send(answer, name="ann", password=PASSWORD)).status_code == 303, "the page can be used again"


async def test_what_was_typed_as_a_name_is_written_down_only_if_somebody_has_it(site: Site) -> None:
    login = await site.arrive()
    await site.send(login, name=PASSWORD, password="oops")
    await site.send(login, name="ann", password="wrong")
    assert site.told() == [("login", "refused", None), ("login", "refused", "ann")]
    assert PASSWORD not in repr(site.events)


async def test_a_one_time_code_is_asked_for_where_somebody_has_set_it_up(site: Site) -> None:
    assert "code" not in Form((await site.arrive()).text).fields
    secret = new_secret()
    site.server.users.set_totp("ann", secret)
    login = await site.arrive()
    assert 'autocomplete="one-time-code"' in login.text
    assert (await site.send(login, name="ann", password=PASSWORD)).status_code == 403
    code = pyotp.TOTP(secret).at(site.server.clock())
    assert (await site.send(login, name="ann", password=PASSWORD, code=code)).status_code == 303
    assert (await site.send(login, name="ann", password=PASSWORD, code=code)).status_code == 403
