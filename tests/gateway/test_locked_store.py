"""Somebody else holds the database's lock: who waits, for how long, and who does not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from opencode_gateway import machine_tokens, store
from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.errors import StoreError
from opencode_gateway.oauth import enrolment
from opencode_gateway.people.users import Users
from support.fleet.lock_holder import locked
from support.gateway.authorization import CHEAP_HASH
from support.gateway.chat_client import Memory, signing_in
from support.gateway.person import Person
from support.gateway.product_gateway import ProductGateway
from support.waiting import eventually_async

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from support.gateway.authorization import AuthorizationServer


_PATIENT = 60_000
"""Milliseconds: a busy machine must not be taken for a lock that is held too long."""


async def test_tokens_are_looked_up_at_once_while_those_who_change_something_wait_for_their_turn(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BUSY_MILLISECONDS", _PATIENT)
    client_id = await server.registered()
    tokens = await server.tokens(client_id)
    machine = machine_tokens.add(server.store, "nightly", ["observe"], now=server.clock())
    verifier = machine_tokens.MachineTokens(server.store, server.configuration.resource)
    with locked(server.store.path) as holder:
        waiting = [
            asyncio.create_task(server.refresh(client_id, tokens["refresh_token"])),
            asyncio.create_task(server.http.post("/revoke", data={"client_id": client_id, "token": "x"})),
        ]
        # One that waited for the lock would wait until the test is over.
        for _ in range(100):
            assert await server.is_good(tokens["access_token"])
            assert await verifier.verify_token(machine) is not None
            await asyncio.sleep(0)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in waiting] == [False, True], "a token that is none changes nothing"
        await asyncio.to_thread(holder.let_go)
        refreshed, revoked = await asyncio.gather(*waiting)

    assert (refreshed.status_code, revoked.status_code) == (200, 200)
    assert await server.is_good(refreshed.json()["access_token"])


async def test_tools_are_called_while_a_client_waits_for_new_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BUSY_MILLISECONDS", _PATIENT)
    Users(tmp_path / "users.json").add("ann", CHEAP_HASH, CAPABILITIES)
    opened = store.Store(tmp_path / store.FILE_NAME)
    memory = Memory()
    async with signing_in(tmp_path, opened) as sign_in:
        enrolment.open_window(opened, minutes=10, now=time.time())
        await sign_in.who(sign_in.oauth(memory, Person(sign_in.trust)))
        assert memory.tokens is not None
        assert memory.client is not None
        form = {
            "grant_type": "refresh_token",
            "client_id": str(memory.client.client_id),
            "refresh_token": str(memory.tokens.refresh_token),
        }
        async with httpx.AsyncClient(verify=sign_in.trust, trust_env=False) as http:
            await http.get(f"{sign_in.url}/.well-known/oauth-authorization-server")  # a connection is there
            with locked(opened.path) as holder:
                waiting = asyncio.create_task(http.post(f"{sign_in.url}/token", data=form))
                said = await sign_in.who(None, Authorization=f"Bearer {memory.tokens.access_token}")
                assert said["subject"] == "ann"
                assert not waiting.done(), "the call did not wait for its end"
                await asyncio.to_thread(holder.let_go)
                assert (await waiting).status_code == 200
    opened.close()


async def test_who_waits_too_long_is_told_to_come_again_together_with_all_who_came_with_them(
    server: AuthorizationServer,
) -> None:
    client_id = await server.registered()
    tokens = [await server.tokens(client_id) for _ in range(10)]
    with locked(server.store.path):
        began, turns = time.monotonic(), 0
        waiting = [asyncio.create_task(server.refresh(client_id, each["refresh_token"])) for each in tokens]
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0.001)
            turns += 1
        took = time.monotonic() - began

    answers = [task.result() for task in waiting]
    assert {(answer.status_code, answer.json()["error"]) for answer in answers} == {(503, "temporarily_unavailable")}
    assert 1.9 < took < 18, "two seconds each, one after the other, would be twenty"
    assert turns > 3 * len(tokens), "the loop went on: where each one blocks it there is a turn each"
    for each in tokens:
        assert (await server.refresh(client_id, each["refresh_token"])).status_code == 200


async def test_only_so_many_wait_for_their_turn(server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_WAITING", 2)

    def nothing(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT 1").fetchone()[0])

    with locked(server.store.path) as holder:
        waiting = [asyncio.create_task(server.store.write(nothing)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="wait for their turn"):
            await server.store.write(nothing)
        await asyncio.to_thread(holder.let_go)
        assert await asyncio.gather(*waiting) == [1, 1]

    assert await server.store.write(nothing) == 1


async def test_what_is_written_by_several_is_written_whole_and_in_turn(server: AuthorizationServer) -> None:
    def fails(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO revoked_clients VALUES ('half', 0)")
        raise RuntimeError("half of it")

    def adds(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO revoked_clients SELECT count(*), 0 FROM revoked_clients")
        return int(db.execute("SELECT count(*) FROM revoked_clients").fetchone()[0])

    outcomes = await asyncio.gather(
        *(server.store.write(adds) for _ in range(50)), server.store.write(fails), return_exceptions=True
    )

    assert outcomes[:50] == list(range(1, 51))
    assert str(outcomes[50]) == "half of it"
    with server.store.transaction(write=False) as db:
        assert db.execute("SELECT count(*) FROM revoked_clients").fetchone()[0] == 50


async def test_a_store_that_is_closed_says_so(server: AuthorizationServer) -> None:
    server.store.close()

    with pytest.raises(StoreError, match="does not serve"):
        await server.store.write(lambda db: db.execute("SELECT 1"))


async def test_nothing_is_changed_through_a_read(server: AuthorizationServer) -> None:
    with pytest.raises(StoreError, match="readonly"), server.store.transaction(write=False) as db:
        db.execute("INSERT INTO revoked_clients VALUES ('x', 0)")


@pytest.fixture
def starting(tmp_path: Path) -> ProductGateway:
    """A gateway that has its database, and has not been started."""
    gateway = ProductGateway(tmp_path / "gateway")
    store.Store(gateway.data_dir / store.FILE_NAME).close()
    gateway.stderr.touch()
    return gateway


def waits(gateway: ProductGateway) -> bool:
    return f"{gateway.data_dir / store.FILE_NAME} is locked by another program" in gateway.log


async def test_a_database_that_is_locked_at_the_start_is_named_and_waited_for(starting: ProductGateway) -> None:
    with locked(starting.data_dir / store.FILE_NAME) as holder:
        start = asyncio.create_task(asyncio.to_thread(starting.start))
        await eventually_async(lambda: waits(starting), "it says that it waits")
        await asyncio.to_thread(holder.let_go)
        await start

    assert starting.get("/healthz").status_code == 200
    assert starting.log.count("is locked by another program") == 1
    assert await asyncio.to_thread(starting.stop) == 0


async def test_a_start_that_waits_ends_when_it_is_told_to(starting: ProductGateway) -> None:
    with locked(starting.data_dir / store.FILE_NAME):
        start = asyncio.create_task(asyncio.to_thread(starting.start))
        await eventually_async(lambda: waits(starting), "it says that it waits")
        starting.process.terminate()

        with pytest.raises(RuntimeError, match="the gateway ended with 0"):
            await start
