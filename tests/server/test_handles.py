"""Handles stand for one thing for ever, wherever its id may stand."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.errors import Refused
from opencode_journal.entries import ASK_OPENED
from opencode_mcp.tools.inbox import inbox
from opencode_mcp.tools.instances import instances
from opencode_mcp.tools.read import read
from opencode_mcp.tools.reply import reply
from opencode_mcp.tools.send import send
from opencode_mcp.tools.sessions import sessions
from support.fleet.fake_relay import fake_relay, structured
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opencode_journal.journal import Handled
    from opencode_mcp.face import Face

DAY = 86_400


async def handle_of(face: Face, name: str) -> str:
    """Return the handle of an instance's newest session."""
    rows = structured(await instances(face))["instances"]
    (handle,) = [row["session_handle"] for row in rows if row["name"] == name]
    return str(handle)


async def test_a_session_is_read_sent_to_and_stopped_by_its_handle_in_any_case(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/", "Fix the login").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        face, context = relay.face, Notes().context()
        handle = await handle_of(face, "laptop")
        agent.add_session("/", "the newest one")
        assert structured(await read(face, context, "laptop", session=f" {handle.upper()} "))["session"] == session
        assert structured(await send(face, context, ["laptop"], "hello", session=handle))["session"] == session
        assert structured(await send(face, context, ["laptop"], abort=True, session=handle))["result"] == "idle"


async def test_a_handle_outlives_the_server_and_is_given_to_nothing_else(tmp_path: Path) -> None:
    agent = FakeAgent()
    first = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        handle = await handle_of(relay.face, "laptop")
    second = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        assert await handle_of(relay.face, "laptop") == relay.face.handles.of_session("laptop", second) != handle
        assert relay.face.handles.of_session("laptop", first) == handle
        instance = await relay.fleet.find_live("laptop")
        assert relay.face.handles.session_id(instance, handle) == first


async def test_a_handle_that_is_listed_every_day_works_however_long_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        now = time.time()
        for day in range(0, 20, 2):
            monkeypatch.setattr(time, "time", lambda day=day: now + day * DAY)
            handle = await handle_of(relay.face, "laptop")
            relay.journal.prune(time.time())
        assert relay.face.handles.session_id(instance, handle) == session


async def test_in_another_journal_no_handle_of_the_one_before_is_listed(tmp_path: Path) -> None:
    agent = FakeAgent()
    ids = [agent.add_session("/").id for _ in range(3)]
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        for session in ids[:2]:
            relay.face.handles.of_session("laptop", session)
        assert await handle_of(relay.face, "laptop") == "s3"
        epoch = relay.journal.epoch
        (tmp_path / "journal.sqlite3").unlink()
        await eventually_async(lambda: relay.journal.epoch != epoch)
        handle = await handle_of(relay.face, "laptop")
        assert relay.face.handles.session_id(instance, handle) == ids[2]


async def test_new_handles_of_one_answer_are_kept_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop, desktop, server = agents = FakeAgent(), FakeAgent(), FakeAgent()
    for agent in agents:
        agent.add_session("/")
        agent.add_ask(agent.add_session("/").id)
        agent.add_session("/")
    async with fake_relay(tmp_path, laptop=laptop, desktop=desktop, server=server) as relay:
        await eventually_async(lambda: len(relay.entries(ASK_OPENED)) == len(agents))
        for name in ("laptop", "desktop", "server"):
            await relay.fleet.find_live(name)
        kept: list[int] = []
        handles = relay.journal.handles

        def counted(kind: Handled, things: Sequence[tuple[str, str]]) -> list[str]:
            kept.append(len(things))
            return handles(kind, things)

        monkeypatch.setattr(relay.journal, "handles", counted)
        assert len(structured(await instances(relay.face))["instances"]) == 3
        assert kept == [3]
        assert len(structured(await inbox(relay.face))["asks"]) == 3
        assert kept == [3, 3, 3]
        assert len(structured(await sessions(relay.face))["sessions"]) == 9
        assert kept == [3, 3, 3, 3]


async def test_handles_of_nothing_of_another_kind_or_of_another_instance_are_refused(tmp_path: Path) -> None:
    laptop, desktop = FakeAgent(), FakeAgent()
    laptop.add_session("/")
    desktop.add_ask(desktop.add_session("/").id)
    async with fake_relay(tmp_path, laptop=laptop, desktop=desktop) as relay:
        face, context = relay.face, Notes().context()
        handle = await handle_of(face, "laptop")
        with pytest.raises(Refused, match=f"^{handle} is a session of 'laptop', not of “desktop”. Nothing was done$"):
            await read(face, context, "desktop", session=handle)
        with pytest.raises(Refused, match=r"^no session has the handle s999; `instances` lists them"):
            await send(face, context, ["laptop"], "hello", session="s999")
        for forged in ("a999", handle.replace("s", "a")):
            with pytest.raises(Refused, match=f"no ask has the handle {forged}; `inbox` lists them"):
                await reply(face, context, "desktop", "once", forged)
        with pytest.raises(Refused, match=f"no session has the handle {handle.replace('s', 'a')}"):
            await read(face, context, "laptop", session=handle.replace("s", "a"))
        assert (laptop.posted, desktop.decisions) == ([], [])


async def test_a_handle_of_an_ask_stands_for_what_was_shown_under_it(tmp_path: Path) -> None:
    agent = FakeAgent()
    ask = agent.add_ask(agent.add_session("/").id)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        face, context = relay.face, Notes().context()
        await relay.fleet.find_live("laptop")

        async def handle_now() -> str:
            (row,) = structured(await reply(face, context, "laptop"))["asks"]
            return str(row["handle"])

        first = await handle_now()
        assert await handle_now() == first
        agent.open[ask.id] = replace(ask, patterns=("rm -rf ~",))
        # Listed to the same login, as in another chat: whoever says the first handle means what it was before.
        second = await handle_now()
        assert second != first
        with pytest.raises(Refused, match="was not shown whole"):
            await reply(face, context, "laptop", "once", first)
        assert not agent.decisions
        several = structured(await reply(face, context, "laptop", "once", [first, "per_none"]))
        assert [row["result"] for row in several["settled"]] == ["refused", "elsewhere"]
        settling = asyncio.create_task(reply(face, context, "laptop", "once", second))
        await eventually_async(lambda: agent.decisions == [("once", None)])
        settling.cancel()


async def test_an_ask_keeps_the_handle_that_it_got_while_its_machine_was_away(tmp_path: Path) -> None:
    agent = FakeAgent()
    ask = agent.add_ask(agent.add_session("/").id)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        handles = relay.face.handles
        away = handles.of_ask("laptop", ask.id)
        assert handles.of_ask("laptop", ask.id, "0" * 32) == away == handles.known_ask("laptop", ask.id)
        changed = handles.of_ask("laptop", ask.id, "1" * 32)
        assert changed != away
        assert handles.of_ask("laptop", ask.id) == changed == handles.known_ask("laptop", ask.id)
        assert handles.ask(away) == handles.ask(changed) == ("laptop", ask.id)
