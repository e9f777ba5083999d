"""A refresh token again: by windows that ask at once, by a client whose answer was lost, by a thief."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from opencode_gateway.oauth import grants
from opencode_gateway.store import _MIGRATIONS, FILE_NAME, Store, hashed
from support.gateway.authorization import AuthorizationServer

if TYPE_CHECKING:
    from pathlib import Path

HOURS = 3600
DAYS = 24 * HOURS


def ended(server: AuthorizationServer) -> list[str]:
    return [event.outcome for event in server.events if event.event == "session-ended"]


async def refreshed(server: AuthorizationServer, client_id: str, token: str, **changed: str) -> dict[str, Any]:
    answer = await server.refresh(client_id, token, **changed)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


async def assert_over(server: AuthorizationServer, client_id: str, token: str) -> None:
    """See that to refresh with `token` ends the session, for whoever asks."""
    answer = await server.refresh(client_id, token)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert ended(server) == ["refresh-token-replayed"]


# Windows that ask at once


@pytest.mark.parametrize("windows", [2, 30, 100])
async def test_windows_that_refresh_at_once_are_given_the_same_tokens_and_any_of_them_goes_on(
    server: AuthorizationServer, windows: int
) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)

    answers = await asyncio.gather(*(refreshed(server, client_id, first["refresh_token"]) for _ in range(windows)))
    assert {answer["access_token"] for answer in answers} == {answers[0]["access_token"]}
    assert {answer["refresh_token"] for answer in answers} == {answers[0]["refresh_token"]}

    assert await server.is_good(answers[0]["access_token"])
    server.clock.advance(grants.ACCESS_SECONDS + 1)
    next_ones = await asyncio.gather(*(refreshed(server, client_id, answer["refresh_token"]) for answer in answers))
    assert await server.is_good(next_ones[0]["access_token"])
    assert ended(server) == []


async def test_a_restart_in_between_changes_nothing(server: AuthorizationServer, tmp_path: Path) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    one = await refreshed(server, client_id, first["refresh_token"])
    await server.close()
    again = AuthorizationServer(tmp_path)
    again.clock.now = server.clock.now + 30

    assert await refreshed(again, client_id, first["refresh_token"]) == one

    await again.close()


async def test_a_window_that_asks_for_less_has_tokens_of_its_own(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    all_of_it = await refreshed(server, client_id, first["refresh_token"])

    less = await refreshed(server, client_id, first["refresh_token"], scope="observe")

    assert (all_of_it["scope"], less["scope"]) == ("observe approve drive", "observe")
    token = await server.provider.verify_token(less["access_token"])
    assert token is not None
    assert token.scopes == ["observe"]
    assert await server.is_good(all_of_it["access_token"])


async def test_a_window_that_is_slower_than_another_is_given_what_that_one_exchanged_last(
    server: AuthorizationServer,
) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    fast = await refreshed(server, client_id, first["refresh_token"])
    faster = await refreshed(server, client_id, fast["refresh_token"])

    slow = await refreshed(server, client_id, first["refresh_token"])

    assert slow == faster
    server.clock.advance(2 * DAYS)
    for tokens in (slow, faster):
        assert await server.is_good((await refreshed(server, client_id, tokens["refresh_token"]))["access_token"])
    assert ended(server) == []


async def test_asking_again_in_a_round_does_not_prolong_it(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    tokens = await refreshed(server, client_id, first["refresh_token"])
    assert await server.is_good(tokens["access_token"])
    server.clock.advance(40)
    assert await refreshed(server, client_id, first["refresh_token"]) == tokens
    server.clock.advance(40)

    await assert_over(server, client_id, first["refresh_token"])


# Answers that were lost


@pytest.mark.parametrize("seconds", [65, 3 * HOURS, 3 * DAYS])
async def test_an_answer_that_was_lost_can_be_had_again(server: AuthorizationServer, seconds: int) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    lost = await refreshed(server, client_id, first["refresh_token"])
    server.clock.advance(seconds)

    again = await refreshed(server, client_id, first["refresh_token"])

    assert again["refresh_token"] != lost["refresh_token"]
    assert await server.is_good(again["access_token"])
    server.clock.advance(2 * DAYS)
    assert await server.is_good((await refreshed(server, client_id, again["refresh_token"]))["access_token"])
    assert ended(server) == []


async def test_windows_that_ask_at_once_for_a_lost_answer_all_go_on(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    await refreshed(server, client_id, first["refresh_token"])
    server.clock.advance(3 * DAYS)

    one = await refreshed(server, client_id, first["refresh_token"])
    assert await server.is_good(one["access_token"])
    server.clock.advance(30)

    assert await refreshed(server, client_id, first["refresh_token"]) == one
    assert ended(server) == []


@pytest.mark.parametrize("use", ["a call", "a refresh"])
async def test_once_the_answer_was_used_the_old_token_ends_the_session(server: AuthorizationServer, use: str) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    tokens = await refreshed(server, client_id, first["refresh_token"])
    server.clock.advance(3 * HOURS)
    if use == "a call":
        assert await server.is_good(tokens["access_token"])
    else:
        tokens = await refreshed(server, client_id, tokens["refresh_token"])
    server.clock.advance(1)

    await assert_over(server, client_id, first["refresh_token"])

    assert not await server.is_good(tokens["access_token"])
    assert (await server.refresh(client_id, tokens["refresh_token"])).status_code == 400


async def test_a_use_outlives_a_restart(server: AuthorizationServer, tmp_path: Path) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    tokens = await refreshed(server, client_id, first["refresh_token"])
    assert await server.is_good(tokens["access_token"])
    await asyncio.gather(*server.provider._grants._confirming.values())
    await server.close()
    again = AuthorizationServer(tmp_path)
    again.clock.now = server.clock.now + 65

    await assert_over(again, client_id, first["refresh_token"])

    await again.close()


async def test_a_use_that_could_not_be_written_down_is_written_down_at_the_next(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    tokens = await refreshed(server, client_id, first["refresh_token"])
    monkeypatch.setattr("opencode_gateway.store._BUSY_MILLISECONDS", 1)
    other = sqlite3.connect(server.store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert await server.is_good(tokens["access_token"]), "a call waits for no lock"
    await asyncio.gather(*server.provider._grants._confirming.values())
    other.execute("ROLLBACK")
    other.close()
    monkeypatch.undo()

    assert await server.is_good(tokens["access_token"])
    server.clock.advance(65)

    await assert_over(server, client_id, first["refresh_token"])


# Thieves


@pytest.mark.parametrize("thief", ["was first", "came later"])
async def test_of_an_owner_and_a_thief_whose_rounds_differ_whoever_has_the_earlier_tokens_ends_the_session(
    server: AuthorizationServer, thief: str
) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    earlier = await refreshed(server, client_id, first["refresh_token"])
    server.clock.advance(3 * HOURS)
    later = await refreshed(server, client_id, first["refresh_token"])
    if thief == "was first":  # and the owner goes on
        assert await server.is_good(later["access_token"])

    assert not await server.is_good(earlier["access_token"])
    await assert_over(server, client_id, earlier["refresh_token"])

    assert not await server.is_good(later["access_token"])
    assert (await server.refresh(client_id, later["refresh_token"])).status_code == 400


async def test_a_thief_in_the_owners_round_has_no_branch_of_his_own(server: AuthorizationServer) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    owners = await refreshed(server, client_id, first["refresh_token"])
    thiefs = await refreshed(server, client_id, first["refresh_token"])
    assert thiefs == owners
    server.clock.advance(1 * DAYS)
    owners = await refreshed(server, client_id, owners["refresh_token"])
    assert await server.is_good(owners["access_token"])
    server.clock.advance(65)

    await assert_over(server, client_id, thiefs["refresh_token"])


@pytest.mark.parametrize("way", ["asks for less", "refreshes again at once", "does both"])
async def test_a_thief_in_the_owners_round_gets_no_branch_by_what_he_asks_for(
    server: AuthorizationServer, way: str
) -> None:
    client_id = await server.registered()
    first = await server.tokens(client_id)
    less = {} if way == "refreshes again at once" else {"scope": "observe"}
    thiefs = await refreshed(server, client_id, first["refresh_token"], **less)
    if way != "asks for less":
        thiefs = await refreshed(server, client_id, thiefs["refresh_token"], **less)
    owners = await refreshed(server, client_id, first["refresh_token"])
    assert await server.is_good(owners["access_token"])
    server.clock.advance(1 * DAYS)
    owners = await refreshed(server, client_id, owners["refresh_token"])
    assert await server.is_good(owners["access_token"])
    server.clock.advance(65)

    await assert_over(server, client_id, thiefs["refresh_token"])

    assert not await server.is_good(owners["access_token"])


async def test_asking_for_lost_answers_again_and_again_has_an_end(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MAX_REPLACED", 5)
    client_id = await server.registered()
    first = await server.tokens(client_id)

    for _ in range(5):
        await refreshed(server, client_id, first["refresh_token"])
        server.clock.advance(65)
    last = await server.refresh(client_id, first["refresh_token"])

    assert last.status_code == 400
    assert ended(server) == ["too-many-refreshes"]


async def test_tokens_of_an_earlier_version_are_good_and_those_that_it_had_replaced_are_evidence(
    tmp_path: Path,
) -> None:
    old = sqlite3.connect(tmp_path / FILE_NAME)
    old.executescript(_MIGRATIONS[0] + "; PRAGMA user_version = 1")
    old.execute("INSERT INTO clients VALUES ('chat', 'Chat', 0, 'https://claude.ai/api/mcp/auth_callback', 0, 1)")
    old.execute("INSERT INTO sessions VALUES ('s', 'ann', 'chat', 'observe', 'https://relay.example.org/mcp', 0, 0)")
    for token, replaced_at in (("replaced", 1.0), ("current", None)):
        values = (hashed(token), "s", "refresh", "observe", 0, 4e9, replaced_at)
        old.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    old.commit()
    old.close()
    Store(tmp_path / FILE_NAME).close()
    server = AuthorizationServer(tmp_path)

    tokens = await refreshed(server, "chat", "current")
    assert await server.is_good(tokens["access_token"])
    await assert_over(server, "chat", "replaced")

    await server.close()
