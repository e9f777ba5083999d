"""A person logs in at a provider and then says yes or no: to whom, to what, and in which browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_gateway.oauth.requests import LIFETIME_SECONDS
from opencode_gateway.oauth.sessions import list_sessions
from support.gateway.authorization import answer_of, proof
from support.gateway.team_gateway import TeamGateway, form_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.gateway.fake_identity_provider import FakeIdentityProvider
    from support.gateway.team_gateway import Make


def codes(running: TeamGateway) -> int:
    """Return how many codes for clients there are."""
    with running.store.transaction(write=False) as db:
        return int(db.execute("SELECT count(*) FROM codes").fetchone()[0])


def callback_of(running: TeamGateway) -> str:
    return f"{running.url}/auth/callback"


async def test_who_has_not_logged_in_is_shown_no_consent_page(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running, running.browser() as browser:
        asked = await browser.get(running.asking(await running.registered()))
        request = answer_of(asked.headers["location"])["request"]

        sent = await browser.get(f"{running.url}/consent", params={"request": request})
        to_provider = await browser.get(asked.headers["location"])

        assert sent.headers["location"].startswith("/login?request=")
        assert to_provider.headers["location"].startswith(f"{provider.url}/authorize?")


async def test_a_person_who_says_no_sends_the_client_access_denied(gateway: Make) -> None:
    async with gateway() as running:
        sent = await running.visit(running.asking(await running.registered()), answer="deny")

        assert answer_of(sent.headers["location"]) == {
            "error": "access_denied",
            "error_description": "The person refused",
            "state": "st&te",
            "iss": running.url,
        }
        assert codes(running) == 0
        assert [(e.outcome, e.login) for e in running.events if e.event == "consent"] == [
            ("denied", "ann@example.org")
        ]


async def test_a_person_whom_the_provider_sends_back_gets_no_code(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.denies = True
    async with gateway() as running:
        sent = await running.visit(running.asking(await running.registered()))

        assert answer_of(sent.headers["location"]) == {
            "error": "access_denied",
            "error_description": "The person refused",
            "state": "st&te",
            "iss": running.url,
        }
        assert (codes(running), provider.called) == (0, [])
        assert (running.events[-1].event, running.events[-1].outcome) == ("login", "denied")


async def test_what_a_person_leaves_out_is_not_granted(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        client_id, pkce = await running.registered(), proof()
        asking = running.asking(client_id, pkce.challenge, scope="observe approve")
        form = form_of(await running.visit(asking, browser=browser, answer=None)) | {"decision": "allow"}
        # More than was asked for is not granted either.
        changed = {name: form[name] for name in form if name != "capability-approve"} | {"capability-drive": "yes"}

        sent = await running.send(browser, changed)
        given = await running.exchange(client_id, answer_of(sent.headers["location"])["code"], pkce.verifier)

        assert given.json()["scope"] == "observe"
        assert [(e.event, e.outcome, e.client_id, e.details) for e in running.events if e.event == "consent"] == [
            ("consent", "allowed", client_id, {"capabilities": ["observe"]})
        ]


async def test_consent_to_nothing_is_asked_for_again(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        shown = await running.visit(running.asking(await running.registered()), browser=browser, answer=None)
        form = {name: value for name, value in form_of(shown).items() if not name.startswith("capability")}

        again = await running.send(browser, form | {"decision": "allow"})

        assert again.status_code == 400
        assert "Tick at least one thing" in again.text
        sent = await running.send(browser, form_of(again) | {"decision": "allow"})
        assert "code" in answer_of(sent.headers["location"])


async def test_the_consent_page_says_who_asks_for_what_and_who_one_is(gateway: Make) -> None:
    async with gateway() as running:
        running.open_window()
        client_id = (await running.register(client_name="<b>Chat</b>")).json()["client_id"]

        shown = (await running.visit(running.asking(client_id, scope="observe"), answer=None)).text

        for words in (
            'Allow <span class="name">&lt;b&gt;Chat&lt;/b&gt;</span>',
            "a name that it chose itself",
            '<strong class="host">claude.ai</strong>',
            running.configuration.resource,
            '<span class="name">ann@example.org</span>',
            'at <span class="host">localhost</span>',
            "see your OpenCode instances",
        ):
            assert words in shown
        assert "send agents tasks" not in shown
        assert shown.index(">Do not allow<") < shown.index(">Allow<")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_a_form_of_another_site_is_no_consent(site: str, gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        shown = await running.visit(running.asking(await running.registered()), browser=browser, answer=None)
        browser.headers["Sec-Fetch-Site"] = site

        refused = await running.send(browser, form_of(shown) | {"decision": "allow"})

        assert (refused.status_code, codes(running)) == (403, 0)


async def test_consent_is_asked_for_each_time(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        client_id = await running.registered()
        await running.visit(running.asking(client_id), browser=browser)
        assert codes(running) == 1

        again = await running.visit(running.asking(client_id, proof().challenge), browser=browser, answer=None)

        assert again.status_code == 200
        assert "Do not allow" in again.text
        assert codes(running) == 1


@pytest.mark.parametrize("answer", ["allow", "deny"])
async def test_an_answer_is_given_once(answer: str, gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        shown = await running.visit(running.asking(await running.registered()), browser=browser, answer=None)
        kept = dict(browser.cookies)
        await running.send(browser, form_of(shown) | {"decision": answer})
        given = codes(running)
        browser.cookies.update(kept)

        again = await running.send(browser, form_of(shown) | {"decision": "allow"})

        assert again.status_code == 403
        assert "This step is over" in again.text
        assert codes(running) == given


async def test_a_form_that_another_browser_was_given_is_no_consent(gateway: Make) -> None:
    async with gateway() as running, running.browser() as attacker, running.browser() as victim:
        asking = running.asking(await running.registered())
        shown = await running.visit(asking, browser=attacker, answer=None)
        await running.visit(asking, browser=victim, answer=None)

        refused = await running.send(victim, form_of(shown) | {"decision": "allow"})

        assert refused.status_code == 403
        assert "location" not in refused.headers
        assert codes(running) == 0


@pytest.mark.parametrize("has_a_mark", [False, True])
async def test_the_provider_s_callback_in_another_browser_than_the_one_that_was_sent_there_logs_nobody_in(
    has_a_mark: bool, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running, running.browser() as attacker, running.browser() as victim:
        asking = running.asking(await running.registered())
        sent = await running.visit(asking, browser=attacker, until=callback_of(running))
        callback = sent.headers["location"]
        if has_a_mark:
            await running.visit(asking, browser=victim, answer=None)
        provider.called.clear()
        running.events.clear()

        refused = await victim.get(callback)

        assert refused.status_code == 403
        assert "location" not in refused.headers
        assert "set-cookie" not in refused.headers
        assert (provider.called, running.events) == ([], [])
        assert list_sessions(running.store) == []
        # It is the browser that mattered: the same address serves the one that was sent away.
        assert "code" in answer_of((await running.visit(callback, browser=attacker)).headers["location"])


async def test_the_login_of_one_request_does_not_count_for_another(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        client_id = await running.registered()
        await running.visit(running.asking(client_id), browser=browser, answer=None)
        other = answer_of((await browser.get(running.asking(client_id, proof().challenge))).headers["location"])[
            "request"
        ]

        sent = await browser.get(f"{running.url}/consent", params={"request": other})

        assert sent.headers["location"].startswith("/login?")


@pytest.mark.parametrize("change", ["salt", "signature", "request", "none"])
async def test_a_callback_whose_state_was_changed_logs_nobody_in(
    change: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running, running.browser() as browser:
        client_id = await running.registered()
        sent = await running.visit(running.asking(client_id), browser=browser, until=callback_of(running))
        state = answer_of(sent.headers["location"])["state"]
        salt, signature, request = state.split(".", 2)
        other = answer_of((await browser.get(running.asking(client_id, proof().challenge))).headers["location"])[
            "request"
        ]
        forged = {
            "salt": f"{salt[::-1]}.{signature}.{request}",
            "signature": f"{salt}.{signature[::-1]}.{request}",
            "request": f"{salt}.{signature}.{other}",
            "none": request,
        }[change]

        for parameters in ({"code": "x"}, {"error": "access_denied"}):
            refused = await browser.get(callback_of(running), params=parameters | {"state": forged})

            assert refused.status_code == 403
            assert "location" not in refused.headers
        assert provider.called == []


@pytest.mark.parametrize("state", ["", "x", ".", "..", "\u0430.\ud7ff.x", "x" * 9000])
async def test_a_callback_with_a_state_that_is_not_ours_logs_nobody_in(
    state: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running, running.browser() as browser:
        await running.visit(running.asking(await running.registered()), browser=browser, answer=None)
        provider.called.clear()

        for parameters in ({"code": "x", "state": state}, {"code": "x"}):
            assert (await browser.get(callback_of(running), params=parameters)).status_code == 403
        assert provider.called == []


async def test_a_login_at_the_provider_that_takes_too_long_is_over(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running, running.browser() as browser:
        asking = running.asking(await running.registered())
        sent = await running.visit(asking, browser=browser, until=callback_of(running))
        running.clock.advance(LIFETIME_SECONDS + 1)

        over = await browser.get(sent.headers["location"])

        assert over.status_code == 400
        assert "This request is over" in over.text
        assert provider.called == []


async def test_each_login_has_its_own_state_and_proof_at_the_provider(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        asking = running.asking(await running.registered())
        async with running.browser() as browser:
            for _ in range(2):
                await running.visit(asking, browser=browser)

        first, exchanged, second, _ = provider.asked
        for name in ("state", "nonce", "code_challenge"):
            assert len({first[name], second[name], "x" * 43}) == 3
        # Neither can be made of what the browser sees.
        assert exchanged["code_verifier"] not in first.values()
        assert exchanged["code_verifier"] not in first["state"]


async def test_a_login_survives_a_restart_while_the_person_is_at_the_provider(
    configure: Callable[..., Configuration], tls: tuple[Path, Path]
) -> None:
    configuration = configure()
    async with TeamGateway(configuration, *tls) as running, running.browser() as browser:
        client_id, pkce = await running.registered(), proof()
        sent = await running.visit(
            running.asking(client_id, pkce.challenge), browser=browser, until=callback_of(running)
        )
        cookies = browser.cookies

    async with TeamGateway(configuration, *tls) as running, running.browser() as browser:
        browser.cookies = cookies
        back = await running.visit(sent.headers["location"], browser=browser)

        code = answer_of(back.headers["location"])["code"]
        assert (await running.exchange(client_id, code, pkce.verifier)).status_code == 200


async def test_who_logged_in_before_a_restart_is_sent_to_the_provider_once_more(
    configure: Callable[..., Configuration], tls: tuple[Path, Path]
) -> None:
    configuration = configure()
    async with TeamGateway(configuration, *tls) as running, running.browser() as browser:
        shown = await running.visit(running.asking(await running.registered()), browser=browser, answer=None)
        cookies = browser.cookies

    async with TeamGateway(configuration, *tls) as running, running.browser() as browser:
        browser.cookies = cookies
        refused = await running.send(browser, form_of(shown) | {"decision": "allow"})
        again = await running.visit(str(shown.url), browser=browser)

        assert (refused.status_code, codes(running)) == (403, 1)
        assert "code" in answer_of(again.headers["location"])


async def test_cookies_come_along_from_another_site_where_they_must(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        sent = await running.visit(
            running.asking(await running.registered()), browser=browser, until=callback_of(running)
        )
        [mark] = [cookie for cookie in browser.cookies.jar if cookie.name == "__Host-browser"]
        back = await browser.get(sent.headers["location"])

        assert mark.get_nonstandard_attr("SameSite") == "lax"
        by_name = {cookie.split("=", 1)[0]: cookie for cookie in back.headers.get_list("set-cookie")}
        assert by_name.keys() == {"__Host-login", "__Host-device"}
        assert "SameSite=lax" in by_name["__Host-login"]
        for cookie in by_name.values():
            assert {"HttpOnly", "Secure", "Path=/"} <= set(cookie.split("; "))


async def test_pages_load_nothing_and_stand_in_no_frame(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        consent = await running.visit(running.asking(await running.registered()), browser=browser, answer=None)
        for page in (
            consent,
            await browser.get(f"{running.url}/consent"),
            await browser.get(f"{running.url}/auth/callback?code=x&state=x"),
        ):
            policy = dict(part.split(maxsplit=1) for part in page.headers["content-security-policy"].split(";"))
            # Browsers hold the redirects after a form to `form-action` too, and those after consent lead away.
            assert policy.pop("form-action", None) == (None if page is consent else "'self'")
            assert policy == {
                "default-src": "'none'",
                "style-src": "'self'",
                "base-uri": "'none'",
                "frame-ancestors": "'none'",
            }
            assert page.headers["x-frame-options"] == "DENY"
            assert page.headers["cache-control"] == "no-store"
