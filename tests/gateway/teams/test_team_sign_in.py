"""People log in at GitHub, Google or an OpenID provider: who comes in, and who does not."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from opencode_gateway.oauth.sessions import list_sessions
from opencode_gateway.sign_in.asking import understood
from opencode_gateway.sign_in.step import ProviderFailed
from support.gateway.fake_identity_provider import CLIENT_ID, CLIENT_SECRET

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.gateway.fake_identity_provider import FakeIdentityProvider
    from support.gateway.team_gateway import Make

MODES = ("oidc", "google", "github")


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
        assert [(event.event, event.outcome, event.login, event.kind) for event in running.events][-2:] == [
            ("login", "ok", "ann@example.org", mode),
            ("consent", "allowed", "ann@example.org", mode),
        ]


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
        assert [(e.event, e.outcome, e.login, e.kind) for e in running.events][-1] == ("login", "refused", None, mode)


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
        {"nonce": "0" * 43},
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


@pytest.mark.parametrize("iss", ["https://elsewhere.example", ""])
async def test_an_answer_of_another_issuer_is_not_taken_for_the_provider_s(
    iss: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.iss = iss
    async with gateway() as running:
        page = await running.visit(running.asking(await running.registered()))

        assert page.status_code == 502
        assert "did not come from localhost" in page.text
        assert provider.called == []


async def test_a_provider_that_says_that_it_names_itself_must(gateway: Make, provider: FakeIdentityProvider) -> None:
    provider.discovery = {"authorization_response_iss_parameter_supported": True}
    async with gateway() as running:
        page = await running.visit(running.asking(await running.registered()))
        provider.iss = provider.url
        _, tokens = await running.log_in()

        assert page.status_code == 502
        assert await running.status(tokens["access_token"]) == 200


@pytest.mark.parametrize("methods", [["client_secret_post"], ["client_secret_basic", "client_secret_post"]])
async def test_the_secret_is_sent_in_a_way_that_the_provider_takes(
    methods: list[str], gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.discovery = {"token_endpoint_auth_methods_supported": methods}
    async with gateway() as running:
        await running.log_in()

        assert ("client_secret" in provider.asked[-1]) is ("client_secret_basic" not in methods)


@pytest.mark.parametrize("answer", ['{"expires_in": 1e999}', "[" * 100_000], ids=["without an end", "deep"])
def test_an_answer_that_breaks_its_reader_is_none(answer: str) -> None:
    with pytest.raises(ProviderFailed, match="cannot be used"), understood("id.example.org"):
        int(json.loads(answer)["expires_in"])


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
