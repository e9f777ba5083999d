"""People log in at GitHub, Google or an OpenID provider: who comes in, and who does not."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from opencode_gateway.oauth import enrolment
from opencode_gateway.oauth.sessions import list_sessions
from support.authorization import answer_of, proof
from support.fake_documents import document_host
from support.fake_identity_provider import CLIENT_ID, CLIENT_SECRET
from support.team_gateway import TeamGateway, form_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.fake_identity_provider import FakeIdentityProvider
    from support.team_gateway import Make

MODES = ("oidc", "google", "github")


def codes(running: TeamGateway) -> int:
    """Return how many codes for clients there are."""
    with running.store.transaction(write=False) as db:
        found = db.execute("SELECT count(*) FROM provider_state WHERE collection = 'mcp-authorization-codes'")
        return int(found.fetchone()[0])


# Who comes in.


@pytest.mark.parametrize("mode", MODES)
async def test_the_sdk_s_own_client_logs_a_listed_person_in(mode: str, gateway: Make) -> None:
    async with gateway(mode) as running:
        running.open_window()

        told = await running.chat()

        assert told["login"] == told["subject"] == "ann@example.org"
        assert told["scopes"] == ["observe", "approve", "drive"]
        assert (told["kind"], told["client_name"]) == (mode, "Chat")
        [session] = list_sessions(running.store)
        assert (session.login, session.client_id) == ("ann@example.org", told["client_id"])
        assert [(event.event, event.outcome) for event in running.events][-1] == ("login", "ok")


@pytest.mark.parametrize("mode", MODES)
async def test_a_person_may_do_what_the_list_says_at_most(
    mode: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.claims["email"] = "bob@example.org"
    provider.emails = [{"email": "bob@example.org", "primary": True, "verified": True}]
    async with gateway(mode) as running:
        _, tokens = await running.log_in(scope="observe drive")

        assert tokens["scope"] == "observe"
        token = await running.auth.verify_token(tokens["access_token"])
        assert token.scopes == ["observe"]


async def test_a_client_that_asks_for_less_gets_less(gateway: Make) -> None:
    async with gateway() as running:
        _, tokens = await running.log_in(scope="observe")

        token = await running.auth.verify_token(tokens["access_token"])
        assert (token.scopes, token.resource) == (["observe"], running.configuration.resource)


async def test_an_address_that_only_the_userinfo_endpoint_tells_counts(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.claims |= {"email": None, "email_verified": None}
    provider.userinfo |= {"email": "ann@example.org", "email_verified": True}
    async with gateway() as running:
        _, tokens = await running.log_in()

        assert await running.status(tokens["access_token"]) == 200


async def test_google_may_name_itself_without_a_scheme(gateway: Make, provider: FakeIdentityProvider) -> None:
    provider.claims["iss"] = provider.url.removeprefix("https://")
    async with gateway("google") as running:
        _, tokens = await running.log_in()

        assert await running.status(tokens["access_token"]) == 200


async def test_the_provider_is_asked_for_an_address_and_told_nothing_of_ours(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway("github") as running:
        await running.log_in()

        assert provider.asked[0]["scope"] == "user:email"
        assert provider.asked[0].keys().isdisjoint({"resource", "nonce"})


# Who does not.

REFUSED: dict[str, tuple[dict[str, Any], Any, int, str]] = {
    "is not listed": (
        {"email": "eve@example.org"},
        [{"email": "eve@example.org", "primary": True, "verified": True}],
        403,
        "eve@example.org is not among the users of this gateway: the owner adds them to sign_in.users",
    ),
    "has no address": ({"email": None}, [], 403, "gave no e-mail address for this account"),
    "has an address that is not verified": (
        {"email_verified": False},
        [{"email": "ann@example.org", "primary": True, "verified": False}],
        403,
        "ann@example.org is not verified at",
    ),
    "is verified by a word": (
        {"email_verified": "true"},
        [{"email": "ann@example.org", "primary": True, "verified": "true"}],
        403,
        "ann@example.org is not verified at",
    ),
    "has a secondary address that is listed": (
        {"email": "eve@example.org", "emails": ["ann@example.org"]},
        [
            {"email": "ann@example.org", "primary": False, "verified": True},
            {"email": "eve@example.org", "primary": True, "verified": True},
        ],
        403,
        "eve@example.org is not among the users",
    ),
    "has an address that looks like a listed one": (
        {"email": "\u0430nn@example.org"},
        [{"email": "\u0430nn@example.org", "primary": True, "verified": True}],
        403,
        "that cannot be used here",
    ),
    "has two addresses in one": (
        {"email": "ann@example.org,eve@example.org"},
        [{"email": "ann@example.org\n", "primary": True, "verified": True}],
        403,
        "that cannot be used here",
    ),
    "is described in another form": (
        {"email": ["ann@example.org"]},
        {"email": "ann@example.org"},
        0,
        "cannot be used",
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", REFUSED)
async def test_somebody_is_refused_at_the_callback_who(
    case: str, mode: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    claims, provider.emails, status, words = REFUSED[case]
    provider.claims |= claims
    async with gateway(mode) as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == (status or (502 if mode == "github" else 403))
        assert words in page.text
        assert "location" not in page.headers
        assert "Traceback" not in page.text
        assert list_sessions(running.store) == []
        assert [(event.event, event.outcome) for event in running.events][-1] == ("login", "refused")


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": "another-client", "azp": CLIENT_ID},
        {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"nbf": int(time.time()) + 3600},
        {"nonce": "0" * 64},
        {"nonce": None},
    ],
    ids=[
        "of another issuer",
        "of no issuer",
        "for another client",
        "for another client, by ours",
        "for another client too",
        "expired",
        "without an end",
        "of tomorrow",
        "of another login",
        "of no login",
    ],
)
@pytest.mark.parametrize("mode", ["oidc", "google"])
async def test_an_id_token_lets_nobody_in_that_is(
    mode: str, changed: dict[str, Any], gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.claims |= changed
    async with gateway(mode) as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502
        assert "id token" in page.text
        assert list_sessions(running.store) == []


async def test_an_id_token_lets_nobody_in_that_another_key_signed(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.signing_key = type(provider.signing_key).generate_key(2048, {"kid": "one"})
    async with gateway() as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502


def unsigned(claims: dict[str, Any], keys: RSAKey) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "kid": "one"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


def by_our_secret(claims: dict[str, Any], keys: RSAKey) -> str:
    return jwt.encode({"alg": "HS256", "kid": "one"}, claims, OctKey.import_key(CLIENT_SECRET))


def by_the_public_key(claims: dict[str, Any], keys: RSAKey) -> str:
    secret = OctKey(keys.as_pem(private=False), keys.as_pem(private=False))
    return jwt.encode({"alg": "HS256", "kid": "one"}, claims, secret)


def by_its_own_key(claims: dict[str, Any], keys: RSAKey) -> str:
    key = RSAKey.generate_key(2048)
    return jwt.encode({"alg": "RS256", "jwk": key.as_dict(private=False)}, claims, key)


@pytest.mark.parametrize("forged", [unsigned, by_our_secret, by_the_public_key, by_its_own_key])
async def test_an_id_token_lets_nobody_in_that_the_provider_s_key_did_not_sign(
    forged: Callable[[dict[str, Any], RSAKey], str], gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.sign = lambda claims: forged(claims, provider.signing_key)
    async with gateway() as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502
        assert "gave no id token that can be trusted" in page.text


async def test_an_answer_without_an_id_token_lets_nobody_in(gateway: Make, provider: FakeIdentityProvider) -> None:
    provider.answer = {"id_token": None}
    async with gateway() as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502


@pytest.mark.parametrize(("subject", "other"), [("42", "43"), (None, None)])
async def test_userinfo_about_another_person_lets_nobody_in(
    subject: str | None, other: str | None, gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.claims |= {"email": None, "sub": subject}
    provider.userinfo = {"sub": other, "email": "ann@example.org", "email_verified": True}
    async with gateway() as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502
        assert "another person" in page.text


async def test_an_access_token_that_has_ended_lets_nobody_in(gateway: Make, provider: FakeIdentityProvider) -> None:
    provider.answer = {"expires_in": -1}
    async with gateway() as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502
        assert list_sessions(running.store) == []


async def test_a_code_that_the_provider_does_not_take_lets_nobody_in(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.error = "invalid_grant"
    async with gateway() as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502
        assert "did not accept this login (invalid_grant)" in page.text


@pytest.mark.parametrize("mode", MODES)
async def test_while_the_provider_is_out_of_order_nobody_logs_in(
    mode: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.status = 503
    async with gateway(mode) as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502
        assert "does not answer: try again later" in page.text


# Clients.


async def test_a_client_registers_in_the_window_alone(gateway: Make) -> None:
    async with gateway() as running:
        answer = await running.register()

        assert answer.status_code == 400
        assert "opencode-gateway clients allow" in answer.json()["error_description"]


async def test_our_own_id_at_the_provider_is_no_client(gateway: Make) -> None:
    async with gateway() as running:
        running.open_window()

        page = await running.visit(running.asking(CLIENT_ID))

        assert page.status_code == 400
        assert "not registered" in page.text


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/cb",
        "https://claude.ai/api/mcp/auth_callback?x=1",
        "https://claude.ai/api/mcp/auth_callback/",
    ],
)
async def test_codes_are_sent_nowhere_else(uri: str, gateway: Make) -> None:
    async with gateway() as running:
        client_id = await running.registered()

        page = await running.visit(running.asking(client_id, redirect_uri=uri))
        running.open_window()
        registered = await running.register(redirect_uris=[uri])

        assert (page.status_code, registered.status_code) == (400, 400)


async def test_another_resource_is_refused(gateway: Make) -> None:
    async with gateway() as running:
        client_id = await running.registered()

        sent = await running.visit(running.asking(client_id, resource="https://other.example/mcp"))

        answer = answer_of(sent.headers["location"])
        assert (answer["error"], answer["iss"]) == ("invalid_target", running.url)


@pytest.mark.parametrize("challenge", ["x" * 42, "x" * 44, "x" * 42 + "="])
async def test_a_challenge_that_is_none_of_s256_is_refused(challenge: str, gateway: Make) -> None:
    async with gateway() as running:
        sent = await running.visit(running.asking(await running.registered(), challenge))

        answer = answer_of(sent.headers["location"])
        assert (answer["error"], answer["iss"]) == ("invalid_request", running.url)


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


@pytest.mark.parametrize("answer", ["approve", "deny"])
async def test_a_redirect_that_is_not_allowed_any_longer_gets_no_answer(
    answer: str,
    configure: Callable[..., Configuration],
    tls: tuple[Path, Path],
) -> None:
    configuration = configure()
    callback = f"{configuration.public_url}/auth/callback"
    clients = configuration.clients.model_copy(update={"redirect_uris": ("https://chat.example.org/cb",)})
    async with TeamGateway(configuration, *tls) as running, running.browser() as browser:
        asked = await browser.get(running.asking(await running.registered()))
        begun = asked.headers["location"]
        if answer == "approve":
            begun = (await running.visit(begun, browser=browser, until=callback)).headers["location"]
        cookies = browser.cookies

    async with (
        TeamGateway(configuration.model_copy(update={"clients": clients}), *tls) as running,
        running.browser() as browser,
    ):
        browser.cookies = cookies
        page = await running.visit(begun, browser=browser, answer=answer)

        assert page.status_code == 400
        assert "This login cannot go on" in page.text
        assert "location" not in page.headers


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


async def test_a_client_known_by_its_document_needs_the_window_each_time(
    gateway: Make, tls: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with document_host(tmp_path, monkeypatch) as host:
        both = tmp_path / "authorities.pem"
        both.write_bytes(tls[0].read_bytes() + (tmp_path / "certificate.pem").read_bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
        client_id = host.put_client("/client.json")
        async with gateway(clients={"client_id_hosts": [host.netloc]}) as running:
            closed = await running.visit(running.asking(client_id))
            running.open_window()
            _, tokens = await running.log_in(client_id)
            enrolment.close_window(running.store)
            again = await running.visit(running.asking(client_id))

            assert (closed.status_code, again.status_code) == (400, 400)
            assert "clients allow" in closed.text
            token = await running.auth.verify_token(tokens["access_token"])
            assert (token.client_id, token.claims["client_name"]) == (client_id, "Chat")
            assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200
