"""How much codes, tokens and sessions can fill, and what is forgotten when."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from opencode_gateway.oauth import grants, rounds
from opencode_gateway.oauth.sessions import list_sessions, revoke_sessions
from support.gateway.authorization import AuthorizationServer, proof

if TYPE_CHECKING:
    import pytest


def count(server: AuthorizationServer, table: str, where: str = "1") -> int:
    with server.store.transaction(write=False) as db:
        return int(db.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])  # noqa: S608 # a test


async def test_codes_and_tokens_are_random_and_long(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    code = await server.code(client_id, proof().challenge)
    tokens = await server.tokens(client_id)

    # 43 characters of base64 are 256 bits.
    for prefix, secret in (("ogc", code), ("oga", tokens["access_token"]), ("ogr", tokens["refresh_token"])):
        assert re.fullmatch(prefix + r"_[A-Za-z0-9_-]{43}", secret)


async def test_what_is_over_is_forgotten(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    await server.tokens(client_id)
    await server.code(client_id, proof().challenge)
    server.clock.advance(91 * 24 * 3600)

    await server.code(client_id, proof().challenge)

    assert [count(server, table) for table in ("codes", "tokens", "sessions")] == [1, 0, 0]


async def test_a_code_that_nobody_used_is_forgotten_as_soon_as_it_is_over(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    await server.code(client_id, proof().challenge)
    server.clock.advance(grants.CODE_SECONDS + 1)

    await server.code(client_id, proof().challenge)

    assert count(server, "codes") == 1


async def test_a_session_is_there_as_long_as_one_of_its_tokens(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    await server.tokens(client_id)
    server.clock.advance(89 * 24 * 3600)

    await server.code(client_id, proof().challenge)

    assert count(server, "sessions") == 1
    assert count(server, "tokens", "kind = 'access'") == 0


async def test_codes_of_one_person_that_were_not_used_are_few(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    pkce = proof()
    codes = []
    for _ in range(grants.MAX_CODES + 1):
        codes.append(await server.code(client_id, pkce.challenge))
        server.clock.advance(1)

    assert count(server, "codes") == grants.MAX_CODES
    assert (await server.exchange(client_id, codes[0], pkce.verifier)).status_code == 400
    assert (await server.exchange(client_id, codes[1], pkce.verifier)).status_code == 200


async def test_one_refresh_token_used_again_and_again_in_its_round_fills_nothing(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)

    for _ in range(3 * grants.MAX_ACCESS):
        latest = (await server.refresh(client_id, first["refresh_token"])).json()

    assert count(server, "tokens") == 4
    assert await server.is_good(latest["access_token"])
    assert await server.is_good(first["access_token"])


async def test_access_tokens_of_one_session_are_few(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    tokens = first = await server.tokens(client_id)

    for _ in range(grants.MAX_ACCESS):
        tokens = (await server.refresh(client_id, tokens["refresh_token"])).json()

    assert count(server, "tokens", "kind = 'access'") == grants.MAX_ACCESS
    assert count(server, "tokens", "kind = 'refresh' AND replaced_at IS NULL") == 1
    assert await server.is_good(tokens["access_token"])
    assert not await server.is_good(first["access_token"])


def ended(server: AuthorizationServer) -> list[str]:
    return [event.outcome for event in server.events if event.event == "session-ended"]


async def test_a_thief_who_refreshes_again_and_again_ends_the_session_rather_than_its_evidence(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MAX_REPLACED", 5)
    client_id = await server.registered()
    tokens = await server.tokens(client_id)

    for replaced in range(1, 6):
        tokens = (await server.refresh(client_id, tokens["refresh_token"])).json()
        assert count(server, "tokens", "replaced_at IS NOT NULL") == replaced
    last = await server.refresh(client_id, tokens["refresh_token"])

    assert (last.status_code, last.json()["error"]) == (400, "invalid_grant")
    assert ended(server) == ["too-many-refreshes"]
    assert not await server.is_good(tokens["access_token"])


async def test_a_first_token_is_still_evidence_after_as_many_refreshes_as_a_session_may_have(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MAX_REPLACED", 30)
    client_id = await server.registered()
    first = tokens = await server.tokens(client_id)
    for _ in range(30):
        tokens = (await server.refresh(client_id, tokens["refresh_token"])).json()
    server.clock.advance(rounds.ROUND_SECONDS + 1)

    assert (await server.refresh(client_id, first["refresh_token"])).status_code == 400

    assert ended(server) == ["refresh-token-replayed"]
    assert not await server.is_good(tokens["access_token"])


async def test_a_session_has_one_refresh_token_whatever_a_thief_asks_for_in_its_round(
    server: AuthorizationServer,
) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    owners = (await server.refresh(client_id, first["refresh_token"])).json()
    for scope in ("observe", "approve", "observe drive"):
        server.clock.advance(1)
        thiefs = (await server.refresh(client_id, first["refresh_token"], scope=scope)).json()
        thiefs = (await server.refresh(client_id, thiefs["refresh_token"])).json()
    assert count(server, "tokens", "kind = 'refresh' AND replaced_at IS NULL") == 1
    server.clock.advance(rounds.ROUND_SECONDS + 1)

    assert (await server.refresh(client_id, owners["refresh_token"])).status_code == 400

    assert ended(server) == ["refresh-token-replayed"]
    assert not await server.is_good(thiefs["access_token"])
    assert (await server.refresh(client_id, thiefs["refresh_token"])).status_code == 400


async def test_sessions_of_one_person_have_a_most_and_the_one_that_is_not_used_makes_room(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MAX_SESSIONS", 2)
    client_id = await server.registered()
    used, unused = await server.tokens(client_id), await server.tokens(client_id)
    server.clock.advance(1)
    used = (await server.refresh(client_id, used["refresh_token"])).json()

    await server.tokens(client_id)

    assert count(server, "sessions") == 2
    assert await server.is_good(used["access_token"])
    assert not await server.is_good(unused["access_token"])


async def test_sessions_are_listed_and_ended_one_by_one_or_by_person(server: AuthorizationServer) -> None:
    client_id = await server.registered(client_name="Chat")
    tokens, others = await server.tokens(client_id), await server.tokens(client_id)
    token = await server.provider.verify_token(tokens["access_token"])
    assert token is not None

    listed = {session.id: session for session in list_sessions(server.store)}
    assert len(listed) == 2
    session = listed[token.claims["session"]]
    assert (session.login, session.client_name, session.capabilities) == (
        "ann",
        "Chat",
        ("observe", "approve", "drive"),
    )

    assert revoke_sessions(server.store, session_id=session.id) == 1
    assert not await server.is_good(tokens["access_token"])
    assert await server.is_good(others["access_token"])
    assert revoke_sessions(server.store, login="nobody") == 0
    assert revoke_sessions(server.store, login="ann") == 1
    assert not await server.is_good(others["access_token"])


async def test_ending_the_sessions_of_a_person_takes_back_codes_too(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    pkce = proof()
    code = await server.code(client_id, pkce.challenge)

    revoke_sessions(server.store, login="ann")

    assert (await server.exchange(client_id, code, pkce.verifier)).json()["error"] == "invalid_grant"
