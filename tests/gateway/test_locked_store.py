"""Somebody else holds the database's lock: who waits, for how long, and who does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from opencode_gateway import machine_tokens, store
from opencode_gateway.errors import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from support.authorization import AuthorizationServer

_HOLDER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
database.execute("ROLLBACK")
"""


class Holder:
    """Another process that holds the write lock until it is told to let go."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def let_go(self) -> None:
        self._process.communicate("\n", timeout=30)


@contextmanager
def locked(path: Path) -> Iterator[Holder]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield Holder(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


async def test_tokens_are_looked_up_at_once_while_those_who_change_something_wait_for_their_turn(
    server: AuthorizationServer,
) -> None:
    client_id = await server.registered()
    tokens = await server.tokens(client_id)
    machine = machine_tokens.add(server.store, "nightly", ["observe"], now=server.clock())
    verifier = machine_tokens.MachineTokens(server.store, server.configuration.resource)
    with locked(server.store.path) as holder:
        waiting = [
            asyncio.create_task(server.refresh(client_id, tokens["refresh_token"])),
            asyncio.create_task(server.http.post("/revoke", data={"client_id": client_id, "token": "x"})),
        ]
        answered, deadline = 0, time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert await server.is_good(tokens["access_token"])
            assert await verifier.verify_token(machine) is not None
            await asyncio.sleep(0)
            answered += 1
        assert answered > 100, "none of them waited"
        assert [task.done() for task in waiting] == [False, True], "a token that is none changes nothing"
        await asyncio.to_thread(holder.let_go)
        refreshed, revoked = await asyncio.gather(*waiting)

    assert (refreshed.status_code, revoked.status_code) == (200, 200)
    assert await server.is_good(refreshed.json()["access_token"])


async def test_who_waits_too_long_is_told_to_come_again_together_with_all_who_came_with_them(
    server: AuthorizationServer,
) -> None:
    client_id = await server.registered()
    tokens = [await server.tokens(client_id) for _ in range(10)]
    with locked(server.store.path):
        began, longest, last = time.monotonic(), 0.0, time.monotonic()
        waiting = [asyncio.create_task(server.refresh(client_id, each["refresh_token"])) for each in tokens]
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        took = time.monotonic() - began

    answers = [task.result() for task in waiting]
    assert {(answer.status_code, answer.json()["error"]) for answer in answers} == {(503, "temporarily_unavailable")}
    assert 1.9 < took < 8, "two seconds each, one after the other, would be twenty"
    assert longest < 1, "the loop went on"
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
