"""What becomes of a login at a provider: restarts, codes, rotation, and every way in which it ends here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from opencode_gateway.configuration import PasswordSignIn
from opencode_gateway.oauth import grants
from opencode_gateway.oauth.enrolment import revoke_client
from opencode_gateway.oauth.grants import REFRESH_SECONDS
from opencode_gateway.oauth.rounds import ROUND_SECONDS
from opencode_gateway.oauth.sessions import list_sessions, revoke_sessions
from support.gateway.authorization import CHEAP_HASH, proof
from support.gateway.team_gateway import TeamGateway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opencode_gateway.configuration import Configuration
    from support.gateway.team_gateway import Make

MODES = ("oidc", "google", "github")
ANN = "ann@example.org"


def ended(running: TeamGateway) -> list[tuple[str | None, str | None, str | None, str | None]]:
    """Return why sessions ended, and whose they were."""
    return [(e.outcome, e.login, e.kind, e.client_id) for e in running.events if e.event == "session-ended"]


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


async def test_a_session_of_another_way_to_log_in_does_not_count(
    configure: Callable[..., Configuration], tls: tuple[Path, Path], tmp_path: Path
) -> None:
    # Somebody has the same name here and there.
    held = ["observe", "approve", "drive"]
    (tmp_path / "users.json").touch(0o600)
    (tmp_path / "users.json").write_text(json.dumps({ANN: {"password": CHEAP_HASH, "capabilities": held}}))
    configuration = configure()
    by_password = configuration.model_copy(update={"sign_in": PasswordSignIn()})
    async with TeamGateway(configuration, *tls) as running:
        client_id, tokens = await running.log_in()
        pkce = proof()
        code = await running.code(client_id, pkce.challenge)

    async with TeamGateway(by_password, *tls) as running:
        assert await running.status(tokens["access_token"]) == 401
        assert (await running.refresh(client_id, tokens["refresh_token"])).json()["error"] == "invalid_grant"
        assert (await running.exchange(client_id, code, pkce.verifier)).json()["error"] == "invalid_grant"
    async with TeamGateway(configuration, *tls) as running:
        assert await running.status(tokens["access_token"]) == 200
        with running.store.transaction() as db:
            db.execute("UPDATE sessions SET kind = 'password', renewal = NULL, recheck_at = NULL")
        assert await running.status(tokens["access_token"]) == 401


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
    monkeypatch.setattr(grants, "MAX_SESSIONS", 2)
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
        running.clock.advance(REFRESH_SECONDS)
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
        assert ended(running) == [("revoked", ANN, "oidc", client_id)]


async def test_a_client_that_is_revoked_while_its_person_logs_in_gets_no_code(gateway: Make) -> None:
    async with gateway() as running:
        client_id = await running.registered()
        login = (await running.http.get(running.asking(client_id))).headers["location"]
        revoke_client(running.store, client_id)

        page = await running.visit(login)

        assert page.status_code == 409
        assert "no longer registered" in page.text
        assert running.events[-1].outcome == "refused"


async def test_a_code_serves_once_and_its_own_client_and_ends_its_session_when_shown_again(gateway: Make) -> None:
    async with gateway() as running:
        client_id, other, pkce = await running.registered(), await running.registered(), proof()
        code = await running.code(client_id, pkce.challenge)

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
        for answer in (first, second):
            assert answer.json()["refresh_token"] != tokens["refresh_token"]
            assert await running.status(answer.json()["access_token"]) == 200


async def test_a_refresh_token_that_is_shown_again_after_the_grace_ends_its_session(gateway: Make) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        new = (await running.refresh(client_id, tokens["refresh_token"])).json()
        running.clock.advance(ROUND_SECONDS)
        assert (await running.refresh(client_id, tokens["refresh_token"])).status_code == 200
        assert await running.status(new["access_token"]) == 200
        running.clock.advance(1)

        replayed = await running.refresh(client_id, tokens["refresh_token"])

        assert replayed.json()["error"] == "invalid_grant"
        assert await running.status(new["access_token"]) == 401
        assert (await running.refresh(client_id, new["refresh_token"])).json()["error"] == "invalid_grant"
        assert ended(running) == [("refresh-token-replayed", ANN, "oidc", client_id)]


async def test_a_refresh_token_is_its_own_client_s_within_the_grace_too(gateway: Make) -> None:
    async with gateway() as running:
        client_id, tokens = await running.log_in()
        other = await running.registered()

        assert (await running.refresh(other, tokens["refresh_token"])).json()["error"] == "invalid_grant"
        new = (await running.refresh(client_id, tokens["refresh_token"])).json()
        assert (await running.refresh(other, tokens["refresh_token"])).json()["error"] == "invalid_grant"

        assert await running.status(new["access_token"]) == 200
