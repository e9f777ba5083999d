"""What becomes of a login at a provider: restarts, codes, rotation, and every way in which it ends here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.oauth.enrolment import revoke_client
from opencode_gateway.oauth.grants import REFRESH_SECONDS
from opencode_gateway.oauth.rounds import ROUND_SECONDS
from opencode_gateway.oauth.sessions import list_sessions, revoke_sessions
from opencode_gateway.teams import sessions as team_sessions
from opencode_gateway.teams import tokens as team_tokens
from support.authorization import answer_of, proof
from support.team_gateway import TeamGateway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.team_gateway import Make

MODES = ("oidc", "google", "github")


def ended(running: TeamGateway) -> list[tuple[str | None, str | None, str | None]]:
    """Return why sessions ended, and whose they were."""
    return [(e.outcome, e.login, e.client_id) for e in running.events if e.event == "session-ended"]


@pytest.mark.parametrize("mode", MODES)
async def test_tokens_outlive_a_restart(
    mode: str, configure: Callable[..., Configuration], tls: tuple[Path, Path]
) -> None:
    configuration = configure(mode)
    async with TeamGateway(configuration, *tls) as running:
        client_id, tokens = await running.log_in()

    async with TeamGateway(configuration, *tls) as running:
        assert await running.status(tokens["access_token"]) == 200
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200


async def test_tokens_are_for_the_address_that_they_were_given_for(
    configure: Callable[..., Configuration], tls: tuple[Path, Path]
) -> None:
    async with TeamGateway(configure(), *tls) as running:
        client_id, tokens = await running.log_in()

    async with TeamGateway(configure(), *tls) as moved:
        assert moved.url != running.url
        assert await moved.status(tokens["access_token"]) == 401
        assert (await moved.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("mode", MODES)
async def test_who_was_taken_off_the_list_is_out_with_the_restart(
    mode: str, configure: Callable[..., Configuration], tls: tuple[Path, Path]
) -> None:
    configuration = configure(mode)
    async with TeamGateway(configuration, *tls) as running:
        client_id, tokens = await running.log_in()
    sign_in = configuration.sign_in.model_copy(update={"users": {"bob@example.org": ("observe",)}})

    async with TeamGateway(configuration.model_copy(update={"sign_in": sign_in}), *tls) as running:
        assert await running.status(tokens["access_token"]) == 401
        refused = await running.refresh(client_id, tokens["refresh_token"])
        assert refused.status_code in {400, 401}
        assert refused.json()["error"] == "invalid_grant"


async def test_who_was_narrowed_in_the_list_may_do_less_with_the_same_token(
    configure: Callable[..., Configuration], tls: tuple[Path, Path]
) -> None:
    configuration = configure()
    async with TeamGateway(configuration, *tls) as running:
        client_id, tokens = await running.log_in()
    sign_in = configuration.sign_in.model_copy(update={"users": {"ann@example.org": ("approve",)}})

    async with TeamGateway(configuration.model_copy(update={"sign_in": sign_in}), *tls) as running:
        assert (await running.auth.verify_token(tokens["access_token"])).scopes == ["approve"]
        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["scope"] == "approve"


async def test_the_owner_ends_a_session_at_once(gateway: Make) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        [session] = list_sessions(running.store)

        revoke_sessions(running.store, session_id=session.id)

        assert await running.status(tokens["access_token"]) == 401
        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_the_owner_ends_a_client_s_sessions_at_once(gateway: Make) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()

        revoke_client(running.store, client_id)

        assert await running.status(tokens["access_token"]) == 401
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 401


async def test_the_oldest_of_too_many_sessions_of_a_person_ends(
    gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_sessions, "MAX_SESSIONS", 2)
    async with gateway() as running:
        client_id, used = await running.log_in()
        running.clock.advance(1)
        _, idle = await running.log_in(client_id)
        running.clock.advance(1)
        used = (await running.refresh(client_id, used["refresh_token"])).json()

        _, new = await running.log_in(client_id)

        statuses = [await running.status(tokens["access_token"]) for tokens in (used, idle, new)]
        assert statuses == [200, 401, 200]


async def test_sessions_that_no_token_can_be_left_of_are_forgotten(gateway: Make) -> None:
    async with gateway() as running:
        client_id, _ = await running.log_in()
        running.clock.advance(REFRESH_SECONDS + 24 * 3600)
        await running.log_in(client_id)
        assert len(list_sessions(running.store)) == 2
        running.clock.advance(1)

        await running.log_in(client_id)

        assert len(list_sessions(running.store)) == 2


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_a_client_ends_its_own_session_with_either_token(which: str, gateway: Make) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        other, _ = await running.log_in()

        await running.http.post("/revoke", data={"client_id": other, "token": tokens[which]})
        assert await running.status(tokens["access_token"]) == 200
        await running.http.post("/revoke", data={"client_id": client_id, "token": tokens[which]})

        assert await running.status(tokens["access_token"]) == 401
        assert ended(running) == [("revoked", "ann@example.org", client_id)]


async def test_a_client_that_is_revoked_while_its_person_logs_in_gets_no_code(gateway: Make) -> None:
    async with gateway() as running:
        client_id = await running.registered()
        consent = (await running.http.get(running.asking(client_id))).headers["location"]
        revoke_client(running.store, client_id)

        page = await running.visit(consent)

        assert page.status_code == 403
        assert "no longer registered" in page.text


async def test_a_code_serves_once_and_its_own_client_and_ends_its_session_when_shown_again(gateway: Make) -> None:
    async with gateway() as running:
        client_id, other, pkce = await running.registered(), await running.registered(), proof()
        sent = await running.visit(running.asking(client_id, pkce.challenge))
        code = answer_of(sent.headers["location"])["code"]

        assert (await running.exchange(other, code, pkce.verifier)).json()["error"] == "invalid_grant"
        assert (await running.exchange(client_id, code, proof().verifier)).json()["error"] == "invalid_grant"
        given = await running.exchange(client_id, code, pkce.verifier)
        assert given.status_code == 200
        assert await running.status(given.json()["access_token"]) == 200
        assert (await running.exchange(other, code, pkce.verifier)).json()["error"] == "invalid_grant"
        assert await running.status(given.json()["access_token"]) == 200
        assert (await running.exchange(client_id, code, pkce.verifier)).json()["error"] == "invalid_grant"
        assert await running.status(given.json()["access_token"]) == 401
        assert running.events[-1].outcome == "code-replayed"


@pytest.mark.parametrize("mode", MODES)
async def test_two_windows_of_a_client_may_refresh_with_the_same_token(mode: str, gateway: Make) -> None:
    async with gateway(mode) as running:
        client_id, tokens = await running.log_in()

        first = await running.refresh(client_id, tokens["refresh_token"])
        second = await running.refresh(client_id, tokens["refresh_token"])

        assert (first.status_code, second.status_code) == (200, 200)
        assert second.json()["refresh_token"] == first.json()["refresh_token"] != tokens["refresh_token"]
        assert await running.status(second.json()["access_token"]) == 200


async def test_many_windows_of_a_client_may_refresh_at_once(gateway: Make) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()

        answers = await asyncio.gather(*(running.refresh(client_id, tokens["refresh_token"]) for _ in range(8)))

        assert len({answer.json()["refresh_token"] for answer in answers}) == 1
        assert await running.status(answers[0].json()["access_token"]) == 200


async def test_a_refresh_token_that_is_shown_again_after_the_grace_ends_its_session(gateway: Make) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        new = (await running.refresh(client_id, tokens["refresh_token"])).json()
        running.clock.advance(60)
        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["access_token"] == new[
            "access_token"
        ]
        assert await running.status(new["access_token"]) == 200
        running.clock.advance(1)

        replayed = await running.refresh(client_id, tokens["refresh_token"])

        assert replayed.json()["error"] == "invalid_grant"
        assert await running.status(new["access_token"]) == 401
        assert (await running.refresh(client_id, new["refresh_token"])).json()["error"] == "invalid_grant"
        assert ended(running) == [("refresh-token-replayed", "ann@example.org", client_id)]


async def test_a_refresh_token_is_its_own_client_s_within_the_grace_too(gateway: Make) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        other = await running.registered()

        assert (await running.refresh(other, tokens["refresh_token"])).json()["error"] == "invalid_grant"
        new = (await running.refresh(client_id, tokens["refresh_token"])).json()
        assert (await running.refresh(other, tokens["refresh_token"])).json()["error"] == "invalid_grant"

        assert await running.status(new["access_token"]) == 200


async def test_what_is_kept_for_the_grace_is_bounded_and_makes_room(
    gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_tokens, "MAX_KEPT", 1)
    async with gateway() as running:
        statuses = []
        for wait in (0, 0, ROUND_SECONDS + 1):
            client_id, tokens = await running.log_in()
            running.clock.advance(wait)
            await running.refresh(client_id, tokens["refresh_token"])
            statuses.append((await running.refresh(client_id, tokens["refresh_token"])).status_code)

        assert statuses == [200, 400, 200]
