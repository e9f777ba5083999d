"""A person says yes or no before they log in at a provider: to whom, to what, and in which browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_gateway.oauth.sessions import list_sessions
from support.authorization import answer_of, proof
from support.team_gateway import TeamGateway, form_of

if TYPE_CHECKING:
    from support.fake_identity_provider import FakeIdentityProvider
    from support.team_gateway import Make


def codes(running: TeamGateway) -> int:
    """Return how many codes for clients there are."""
    with running.store.transaction(write=False) as db:
        found = db.execute("SELECT count(*) FROM provider_state WHERE collection = 'mcp-authorization-codes'")
        return int(found.fetchone()[0])


async def test_a_person_who_denies_consent_never_reaches_the_provider(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        sent = await running.visit(running.asking(await running.registered()), answer="deny")

        assert answer_of(sent.headers["location"]) == {
            "error": "access_denied",
            "state": "st&te",
            "iss": running.url,
        }
        assert provider.asked == []
        assert [event.outcome for event in running.events if event.event == "consent"] == ["denied"]


async def test_a_person_whom_the_provider_sends_back_gets_no_code(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.denies = True
    async with gateway() as running:
        sent = await running.visit(running.asking(await running.registered()))

        assert answer_of(sent.headers["location"]) == {
            "error": "access_denied",
            "state": "st&te",
            "iss": running.url,
        }
        assert codes(running) == 0


async def test_what_a_person_leaves_out_is_not_granted(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        client_id, pkce = await running.registered(), proof()
        asked = await browser.get(running.asking(client_id, pkce.challenge, scope="observe approve"))
        shown = await browser.get(asked.headers["location"])
        form = form_of(shown) | {"action": "approve"}
        # More than was asked for is not granted either.
        changed = {name: form[name] for name in form if name != "capability-approve"} | {"capability-drive": "yes"}

        sent = await browser.post(shown.url, data=changed)
        back = await running.visit(sent.headers["location"], browser=browser)
        given = await running.exchange(client_id, answer_of(back.headers["location"])["code"], pkce.verifier)

        assert given.json()["scope"] == "observe"
        assert [(e.event, e.outcome, e.client_id, e.details) for e in running.events if e.event == "consent"] == [
            ("consent", "allowed", client_id, {"capabilities": ["observe"]})
        ]


async def test_consent_to_nothing_is_asked_for_again(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running, running.browser() as browser:
        asked = await browser.get(running.asking(await running.registered()))
        shown = await browser.get(asked.headers["location"])
        form = {name: value for name, value in form_of(shown).items() if not name.startswith("capability")}

        again = await browser.post(shown.url, data=form | {"action": "approve"})

        assert again.status_code == 400
        assert "Tick at least one thing" in again.text
        assert provider.asked == []
        sent = await browser.post(shown.url, data=form_of(again) | {"action": "approve"})
        assert sent.headers["location"].startswith(provider.url)


async def test_the_consent_page_says_who_asks_for_what(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running:
        running.open_window()
        client_id = (await running.register(client_name="<b>Chat</b>")).json()["client_id"]
        asked = await running.http.get(running.asking(client_id, scope="observe"))

        shown = (await running.http.get(asked.headers["location"])).text

        for words in (
            'Allow <span class="name">&lt;b&gt;Chat&lt;/b&gt;</span>',
            "a name that it chose itself",
            '<strong class="host">claude.ai</strong>',
            running.configuration.resource,
            '<span class="name">localhost</span>',
            "see your OpenCode instances",
        ):
            assert words in shown
        assert "send agents tasks" not in shown
        assert shown.index(">Do not allow<") < shown.index(">Allow<")


async def test_a_form_of_another_site_is_no_consent(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running, running.browser() as browser:
        asked = await browser.get(running.asking(await running.registered()))
        shown = await browser.get(asked.headers["location"])

        refused = await browser.post(
            shown.url, data=form_of(shown) | {"action": "approve"}, headers={"Sec-Fetch-Site": "cross-site"}
        )

        assert refused.status_code == 403
        assert provider.asked == []


async def test_consent_is_asked_for_each_time(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running, running.browser() as browser:
        client_id = await running.registered()
        await running.visit(running.asking(client_id), browser=browser)
        asked = len(provider.asked)

        consent = (await browser.get(running.asking(client_id))).headers["location"]
        again = await browser.get(consent, headers={"Sec-Fetch-Site": "none"})

        assert again.status_code == 200
        assert len(provider.asked) == asked


async def test_a_form_that_another_browser_was_given_is_no_consent(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running, running.browser() as attacker, running.browser() as victim:
        consent = (await attacker.get(running.asking(await running.registered()))).headers["location"]
        shown = await attacker.get(consent)

        refused = await victim.post(consent, data=form_of(shown) | {"action": "approve"})

        assert refused.status_code == 403
        assert "location" not in refused.headers
        assert provider.asked == []


async def test_the_provider_s_callback_in_another_browser_than_the_one_that_consented_gives_no_code(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running, running.browser() as attacker, running.browser() as victim:
        asking = running.asking(await running.registered())
        sent = await running.visit(asking, browser=attacker, until=f"{running.url}/auth/callback")
        callback = sent.headers["location"]

        refused = await victim.get(callback)

        assert refused.status_code == 403
        assert "location" not in refused.headers
        assert provider.called == []
        assert (codes(running), list_sessions(running.store)) == (0, [])
        # It is the browser that mattered: the same address serves the one that consented.
        assert "code" in answer_of((await attacker.get(callback)).headers["location"])
        assert codes(running) == 1


async def test_a_callback_before_consent_gives_no_code(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running:
        asked = await running.http.get(running.asking(await running.registered()))
        state = answer_of(asked.headers["location"])["txn_id"]

        refused = await running.http.get("/auth/callback", params={"code": "x", "state": state})

        assert refused.status_code == 403
        assert provider.called == []


@pytest.mark.parametrize("state", ["", "x"])
async def test_a_callback_with_a_state_that_is_not_ours_gives_no_code(
    state: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        refused = await running.http.get("/auth/callback", params={"code": "x", "state": state})

        assert refused.status_code == 400
        assert provider.called == []


async def test_each_login_has_its_own_state_and_proof_at_the_provider(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        asking = running.asking(await running.registered())
        for _ in range(2):
            await running.visit(asking)

        first, _, second, _ = provider.asked
        assert len({first["state"], second["state"]}) == 2
        assert len({first["nonce"], second["nonce"]}) == 2
        assert len({first["code_challenge"], second["code_challenge"], "x" * 43}) == 3


async def test_pages_load_nothing_and_stand_in_no_frame(gateway: Make) -> None:
    async with gateway() as running, running.browser() as browser:
        consent = await browser.get(
            (await browser.get(running.asking(await running.registered()))).headers["location"]
        )
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
