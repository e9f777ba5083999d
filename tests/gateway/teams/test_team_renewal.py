"""A session is asked about at the provider again: it goes on, ends, or waits until the provider answers."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.oauth.rounds import ROUND_SECONDS
from opencode_gateway.oauth.sessions import list_sessions, revoke_sessions
from opencode_gateway.sign_in import provider as sign_in
from opencode_gateway.sign_in.asking import TIMEOUT_SECONDS
from support.gateway.team_gateway import TeamGateway
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.gateway.fake_identity_provider import FakeIdentityProvider
    from support.gateway.team_gateway import Make

MODES = ("oidc", "google", "github")
ANN = "ann@example.org"


def ended(running: TeamGateway) -> list[tuple[str | None, str | None, str | None, str | None]]:
    """Return why sessions ended, and whose they were."""
    return [(e.outcome, e.login, e.kind, e.client_id) for e in running.events if e.event == "session-ended"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_session_goes_on_while_the_provider_renews_it(
    mode: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway(mode) as running:
        _, tokens = await running.log_in()
        for _ in range(3):
            asked = len(provider.called)
            running.clock.advance(sign_in.RECHECK_SECONDS - 1)
            assert await running.status(tokens["access_token"]) == 200
            assert len(provider.called) == asked
            running.clock.advance(1)

            assert await running.status(tokens["access_token"]) == 200

            assert len(provider.called) > asked
        assert (await running.auth.verify_token(tokens["access_token"])).claims["kind"] == mode


@pytest.mark.parametrize("mode", MODES)
async def test_who_is_closed_at_the_provider_is_out_when_it_is_asked_again(
    mode: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway(mode) as running:
        client_id, tokens = await running.log_in()
        provider.end_sessions()
        assert await running.status(tokens["access_token"]) == 200

        running.clock.advance(sign_in.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 401
        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"
        assert ended(running) == [("provider-ended", ANN, mode, client_id)]
        assert list_sessions(running.store) == []


@pytest.mark.parametrize(
    "change", [{"email": "eve@example.org"}, {"email_verified": False}, {"email": "bob@example.org"}]
)
async def test_whose_address_is_another_when_the_provider_is_asked_again_is_out(
    change: dict[str, Any], gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.claims |= change
        assert await running.status(tokens["access_token"]) == 200

        running.clock.advance(sign_in.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 401
        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"
        assert ended(running) == [("person-refused", ANN, "oidc", client_id)]


@pytest.mark.parametrize(
    "change", [{"email": "eve@example.org"}, {"email_verified": False}, {"email": "bob@example.org"}]
)
async def test_who_is_not_let_in_any_longer_when_a_client_refreshes_is_out_at_once(
    change: dict[str, Any], gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.claims |= change

        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"

        assert await running.status(tokens["access_token"]) == 401
        assert ended(running) == [("person-refused", ANN, "oidc", client_id)]


async def test_a_renewal_without_an_id_token_is_one(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.answer |= {"id_token": None}
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200

        running.clock.advance(sign_in.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 200


async def test_a_refresh_token_that_the_provider_does_not_replace_is_used_again(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        _, tokens = await running.log_in()
        provider.rotates = False
        for _ in range(3):
            running.clock.advance(sign_in.RECHECK_SECONDS)
            assert await running.status(tokens["access_token"]) == 200


async def test_a_provider_that_gives_tokens_for_less_than_an_hour_is_asked_earlier(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.answer = {"expires_in": 600}
    async with gateway() as running:
        _, tokens = await running.log_in()
        provider.end_sessions()
        running.clock.advance(599)
        assert await running.status(tokens["access_token"]) == 200

        running.clock.advance(1)

        assert await running.status(tokens["access_token"]) == 401


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(600, 600), (None, sign_in.UNTOLD_SECONDS), (30 * 86_400, 86_400)],
    ids=["when the provider said", "after an hour where it does not say", "after a day at the latest"],
)
async def test_a_login_that_cannot_be_renewed_ends(
    said: int | None, seconds: int, gateway: Make, provider: FakeIdentityProvider
) -> None:
    provider.refresh = False
    provider.answer = {"expires_in": said}
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        assert "refresh_token" not in tokens
        assert seconds - 60 < tokens["expires_in"] <= seconds
        running.clock.advance(seconds - 1)
        if seconds < 86_400:
            assert await running.status(tokens["access_token"]) == 200

        running.clock.advance(1)

        assert await running.status(tokens["access_token"]) == 401
        if seconds < 86_400:
            assert ended(running) == [("provider-ended", ANN, "oidc", client_id)]
        provider.answer = {"expires_in": 600}
        running.clock.advance(1)
        await running.log_in(client_id)
        assert len(list_sessions(running.store)) == 1, "what has ended is not listed"


@pytest.mark.parametrize("error", ["temporarily_unavailable", "invalid_client"])
async def test_a_provider_that_renews_nothing_now_ends_no_session(
    error: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.error = error
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 503

        provider.error = None

        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize("mode", MODES)
async def test_a_session_that_cannot_be_renewed_now_is_refused_and_goes_on_later(
    mode: str, gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway(mode) as running:
        client_id, tokens = await running.log_in()
        running.clock.advance(sign_in.RECHECK_SECONDS)
        provider.status = 503

        # Not 401: a client would throw its token away.
        assert await running.status(tokens["access_token"]) == 503
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 503

        provider.status = 200
        assert await running.status(tokens["access_token"]) == 200
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200
        assert ended(running) == []


async def test_a_provider_that_is_gone_lets_nobody_on_and_ends_no_session(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        _, tokens = await running.log_in()
        running.clock.advance(sign_in.RECHECK_SECONDS)
        provider.stop()

        assert await running.status(tokens["access_token"]) == 503
        assert len(list_sessions(running.store)) == 1


async def test_a_refresh_token_that_came_with_an_answer_that_is_no_good_is_not_lost(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        _, tokens = await running.log_in()
        running.clock.advance(sign_in.RECHECK_SECONDS)
        good, provider.sign = provider.sign, lambda claims: "no.id.token"
        assert await running.status(tokens["access_token"]) == 503

        provider.sign = good

        assert await running.status(tokens["access_token"]) == 200


async def test_one_question_at_a_time_serves_all_calls_of_a_session(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        _, tokens = await running.log_in()
        running.clock.advance(sign_in.RECHECK_SECONDS)
        provider.called.clear()
        provider.waits_for = threading.Event()
        first = asyncio.create_task(running.auth.verify_token(tokens["access_token"]))
        await eventually_async(lambda: provider.called == ["/token"], "the provider is asked", within=TIMEOUT_SECONDS)
        waiting = [asyncio.create_task(running.auth.verify_token(tokens["access_token"])) for _ in range(8)]
        await asyncio.sleep(0)  # they begin

        # Whoever asked gives up; the question is brought to its end, as its answer holds the next refresh token.
        first.cancel()
        provider.waits_for.set()

        assert all(token.subject == ANN for token in await asyncio.gather(*waiting))
        assert first.cancelled()
        assert provider.called.count("/token") == 1
        running.clock.advance(sign_in.RECHECK_SECONDS)
        assert await running.status(tokens["access_token"]) == 200


async def test_many_windows_of_a_client_may_refresh_at_once(gateway: Make, provider: FakeIdentityProvider) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.called.clear()

        answers = await asyncio.gather(*(running.refresh(client_id, tokens["refresh_token"]) for _ in range(8)))

        assert {answer.status_code for answer in answers} == {200}
        for answer in answers:
            assert await running.status(answer.json()["access_token"]) == 200
        assert ended(running) == []
        assert provider.called.count("/token") == 1


async def test_the_provider_is_asked_once_a_round_also_by_those_that_come_one_after_the_other(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        provider.called.clear()

        for _ in range(3):
            latest = await running.refresh(client_id, tokens["refresh_token"])
            assert latest.status_code == 200
            running.clock.advance(10)
        assert provider.called.count("/token") == 1

        running.clock.advance(ROUND_SECONDS)
        assert (await running.refresh(client_id, latest.json()["refresh_token"])).status_code == 200
        assert provider.called.count("/token") == 2


async def test_a_session_that_ends_while_the_provider_is_asked_stays_ended(
    gateway: Make, provider: FakeIdentityProvider
) -> None:
    async with gateway() as running:
        _, tokens = await running.log_in()
        running.clock.advance(sign_in.RECHECK_SECONDS)
        provider.called.clear()
        provider.waits_for = threading.Event()
        waiting = asyncio.create_task(running.status(tokens["access_token"]))
        await eventually_async(lambda: provider.called == ["/token"], "the provider is asked", within=TIMEOUT_SECONDS)

        revoke_sessions(running.store)
        provider.waits_for.set()

        assert await waiting == 401
        assert await running.status(tokens["access_token"]) == 401
        assert list_sessions(running.store) == []


async def test_without_its_key_a_session_ends_when_the_provider_would_be_asked(
    configure: Callable[..., Configuration], tls: tuple[Path, Path], tmp_path: Path
) -> None:
    configuration = configure()
    async with TeamGateway(configuration, *tls) as running:
        client_id, tokens = await running.log_in()
    (tmp_path / sign_in.KEY_FILE).unlink()

    async with TeamGateway(configuration, *tls) as running:
        assert await running.status(tokens["access_token"]) == 200
        running.clock.advance(sign_in.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 401
        assert ended(running) == [("renewal-lost", ANN, "oidc", client_id)]


async def test_what_one_provider_gave_is_not_shown_to_another(
    configure: Callable[..., Configuration], tls: tuple[Path, Path], provider: FakeIdentityProvider
) -> None:
    configuration = configure("oidc")
    async with TeamGateway(configuration, *tls) as running:
        client_id, tokens = await running.log_in()
    provider.discovery = {"token_endpoint": f"{provider.url}/login/oauth/access_token"}
    provider.called.clear()

    async with TeamGateway(configuration, *tls) as running:
        running.clock.advance(sign_in.RECHECK_SECONDS)

        assert await running.status(tokens["access_token"]) == 401
        assert provider.called == []
        assert ended(running) == [("renewal-lost", ANN, "oidc", client_id)]


async def test_what_a_provider_gave_while_the_store_was_locked_is_not_lost(
    gateway: Make, provider: FakeIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opencode_gateway.store._BUSY_MILLISECONDS", 1)
    async with gateway() as running:
        _, tokens = await running.log_in()
        running.clock.advance(sign_in.RECHECK_SECONDS)
        other = sqlite3.connect(running.store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            assert await running.status(tokens["access_token"]) == 503
        other.execute("ROLLBACK")
        other.close()

        assert await running.status(tokens["access_token"]) == 200
        running.clock.advance(sign_in.RECHECK_SECONDS)
        assert await running.status(tokens["access_token"]) == 200
        assert ended(running) == []
