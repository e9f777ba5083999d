"""Messages for instances that are away: kept, sent once and in order, listed, cancelled, expired; and told of."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_common import database
from opencode_fleet import room as room_module
from opencode_fleet.errors import NoSuchInstance, Refused
from opencode_fleet.later import Kept
from opencode_fleet.model import Message, Outcome, Permission
from opencode_journal.entries import (
    MESSAGE,
    MESSAGE_ACCEPTED,
    MESSAGE_ANSWERED,
    MESSAGE_CANCELLED,
    MESSAGE_DELIVERED,
    MESSAGE_EXPIRED,
    MESSAGE_FAILED,
    TURN_ENDED,
)
from opencode_mcp.caller import Caller
from opencode_mcp.tools.control import control
from opencode_mcp.tools.inbox import inbox
from opencode_mcp.tools.instances import instances
from opencode_mcp.tools.wait import wait
from opencode_mcp.views.messages import kept as kept_text
from support.fleet.asleep import away, come_back, kept, leave, look_at_once, recorded, sent, texts
from support.fleet.fake_relay import fake_copy, fake_relay, structured, text_of
from support.fleet.full_disk import fill
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


DAY = 86_400


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nobody to wait for seconds."""
    look_at_once(monkeypatch)


# -- from acceptance to the end --------------------------------------------------------------------------------------


async def test_what_is_sent_to_one_that_is_away_is_done_once_it_is_back_and_told_of(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/", "Fix the login").id
    async with away(tmp_path, agent) as relay:
        before = structured(await inbox(relay.face))["cursor"]
        result = await sent(relay, "run the tests")
        assert isinstance(result, Kept)
        handle = result.message.handle
        assert "it is away. The message is kept as" in kept_text(result)[0]
        (row,) = structured(await inbox(relay.face))["messages"]
        assert (row["handle"], row["instance"], row["about"], row["step"]) == (
            handle,
            "laptop",
            "run the tests",
            "waits",
        )
        assert "1 message waits for it" in text_of(await instances(relay.face))
        assert not agent.posted
        come_back(relay)
        await recorded(relay, MESSAGE_ANSWERED)
        assert texts(agent) == ["run the tests"]
        assert agent.posted[0].session_id == session
        told = structured(await inbox(relay.face, before))
        # One turn is told of once, though the journal has an entry of its end, too.
        assert [(end["result"], end["session"], end["title"]) for end in told["ended"]] == [
            ("done", session, f"{handle}: run the tests")
        ]
        (turn,) = await recorded(relay, TURN_ENDED)
        assert turn.data[MESSAGE] == handle
        assert "messages" not in told
        kinds = [entry.kind for entry in relay.entries(MESSAGE_ACCEPTED, MESSAGE_DELIVERED, MESSAGE_ANSWERED)]
        assert kinds == [MESSAGE_ACCEPTED, MESSAGE_DELIVERED, MESSAGE_ANSWERED]


async def test_one_that_is_there_and_idle_gets_it_at_once(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        result = await sent(relay, "hello")
        assert isinstance(result, Outcome)
        assert (result.result, result.text) == ("done", "echo: hello")
        assert not relay.entries(MESSAGE_ACCEPTED)


async def test_one_that_is_busy_gets_what_was_sent_in_order_and_each_after_the_turn_before(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        agent.tell_busy(session, "thinking")
        await eventually_async(lambda: instance.state.is_busy(session), "it runs")
        result = await sent(relay, "first")
        assert isinstance(result, Kept)
        assert result.why == "it is busy"
        await kept(relay, "second")
        await kept(relay, "third", session="new")  # could begin now, and was sent last
        agent.gate.clear()
        await agent.interrupt(session)
        await recorded(relay, MESSAGE_DELIVERED)
        assert texts(agent) == ["first"]
        assert [row["step"] for row in structured(await inbox(relay.face))["messages"]] == ["sent", "waits", "waits"]
        agent.gate.set()
        await recorded(relay, MESSAGE_ANSWERED, 3)
        assert texts(agent) == ["first", "second", "third"]
        assert agent.posted[2].session_id != session


async def test_a_message_whose_turn_asks_is_over_once_that_is_settled(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as relay:
        await kept(relay, "ask for it")
        come_back(relay)
        instance = await relay.fleet.find("laptop")
        await eventually_async(instance.state.pending_asks, "it asks", within=20)
        (ask,) = instance.state.pending_asks()
        assert isinstance(ask, Permission)
        assert not relay.entries(MESSAGE_ANSWERED)
        await agent.reply(ask, "once", None)
        (end,) = await recorded(relay, MESSAGE_ANSWERED)
        assert end.session == agent.posted[0].session_id


async def test_the_same_message_again_is_kept_once_and_not_sent_again_after_its_end(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as relay:
        first = await kept(relay, "once only")
        assert await kept(relay, "once only") == first
        assert await kept(relay, "another") != first
        come_back(relay)
        await recorded(relay, MESSAGE_ANSWERED, 2)
        with pytest.raises(Refused, match=f"{first} was delivered, and its turn is done. Nothing was sent again"):
            await sent(relay, "once only")
        assert texts(agent) == ["once only", "another"]


async def test_its_end_is_told_as_theirs_to_who_sent_it_and_by_name_to_others(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as relay:
        ann, ben = (relay.face.of(Caller(login, relay.face.caller.may)) for login in ("ann", "ben"))
        before = structured(await inbox(ann))["cursor"]
        await kept(relay, "hello", by="ann")
        await kept(relay, "to nobody", by="ben", session="ses_gone")
        come_back(relay)
        await recorded(relay, MESSAGE_ANSWERED)
        await recorded(relay, MESSAGE_FAILED)
        for tool in (inbox, wait):
            told = text_of(await tool(ann, before))
            assert "· your message was delivered, and is done" in told
            assert "· a message of ben failed" in told
            told = text_of(await tool(ben, before))
            assert "· a message of ann was delivered, and is done" in told
            assert "· your message failed" in told


# -- what is refused -------------------------------------------------------------------------------------------------


async def test_a_name_that_was_never_seen_is_refused_and_one_that_the_journal_knows_is_not(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        await instances(relay.face)
    async with fake_copy(tmp_path, {"laptop-two": FakeAgent()}) as relay:
        await relay.fleet.find_live("laptop-two")
        # The whole name of one that is away, and not a part of another one's.
        await kept(relay, "for the first")
        listed = structured(await instances(relay.face))
        assert listed["problems"] == ["laptop is not there; 1 message waits for it"]
        with pytest.raises(NoSuchInstance, match="Nothing was kept"):
            await relay.face.later.place("desktop")


async def test_there_is_room_for_so_many_and_so_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "MAX_OF_INSTANCE", 2)
    monkeypatch.setattr(room_module, "MAX_BYTES_OF_INSTANCE", 10)
    async with away(tmp_path, FakeAgent()) as relay:
        await kept(relay, "12345")
        with pytest.raises(Refused, match="1 messages wait for “laptop”; there is room for 2, and for 10 bytes"):
            await sent(relay, "123456")
        handle = await kept(relay, "6789")
        with pytest.raises(Refused, match="Nothing was kept and nothing sent"):
            await sent(relay, "x")
        relay.outbox.cancel(handle, "", "ann")
        await kept(relay, "x")


async def test_one_that_is_larger_than_the_journal_takes_is_refused_in_words(tmp_path: Path) -> None:
    async with away(tmp_path, FakeAgent()) as relay:
        with pytest.raises(Refused, match="more than can be kept"):
            await sent(relay, "ä" * 150_000)
        assert not relay.outbox.messages()


async def test_a_command_is_not_kept(tmp_path: Path) -> None:
    async with away(tmp_path, FakeAgent()) as relay:
        with pytest.raises(Refused, match="a command has no id"):
            await sent(relay, "/greet Ann")


async def test_nothing_is_accepted_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(path: Path | str, patience: float) -> sqlite3.Connection:
        connection = database.connect(path, patience)
        connection.execute("PRAGMA max_page_count = 60")
        return connection

    monkeypatch.setattr("opencode_journal.opening.connect", connect)
    async with away(tmp_path, FakeAgent()) as relay:
        fill(relay.journal)
        with pytest.raises(Refused, match=r"nothing was kept and nothing sent: .*make room on its disk"):
            await sent(relay, "x" * 50_000)
        assert not relay.outbox.messages()
    async with fake_relay(None, laptop=FakeAgent()) as relay:
        await relay.fleet.find_live("laptop")
        await leave(relay)
        with pytest.raises(Refused, match=r"nothing was kept and nothing sent: .*set RELAY_STATE_DIR"):
            await sent(relay, "hello")


# -- what fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"session": "ses_gone"}, "has no session ses_gone"),
        ({"session": "words of no title"}, "is in no session's title"),
        ({"agent": "gardener"}, "has no agent 'gardener'"),
        ({"model": "fake/none"}, "has no model 'fake/none'"),
    ],
)
async def test_what_is_not_there_any_more_fails_the_message_and_the_next_one_goes(
    tmp_path: Path, more: dict[str, str], problem: str
) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as relay:
        handle = await kept(relay, "hello", **more)
        await kept(relay, "and then")
        come_back(relay)
        (failed,) = await recorded(relay, MESSAGE_FAILED)
        assert problem in failed.data["problem"]
        await recorded(relay, MESSAGE_ANSWERED)
        assert texts(agent) == ["and then"]
        (told, _) = structured(await inbox(relay.face))["ended"][-2:]
        assert (told["result"], told["title"]) == ("failed", f"{handle}: hello")
        assert problem in told["problem"]


async def test_a_session_that_another_opencode_runs_gets_it_after_the_end_of_that(tmp_path: Path) -> None:
    looks: asyncio.Queue[str] = asyncio.Queue()

    class Watched(FakeAgent):
        async def messages(self, session_id: str, limit: int, **options: object) -> list[Message]:
            looks.put_nowait(session_id)
            return await super().messages(session_id, limit, **options)

    agent = Watched()
    session = agent.add_session("/").id
    agent.clock = time.time()
    written = Message(id="msg_other", session_id=session, role="assistant", answers="msg_0", created=agent.clock)
    agent.conversations[session] = [written]
    async with away(tmp_path, agent) as relay:
        await kept(relay, "hello", session=session)
        come_back(relay)
        for _ in range(3):
            await looks.get()
        assert not relay.entries(MESSAGE_FAILED, MESSAGE_DELIVERED)
        agent.conversations[session] = [replace(written, completed=agent.clock, ended="well")]
        await recorded(relay, MESSAGE_ANSWERED)
        assert texts(agent) == ["hello"]


async def test_an_instance_of_that_name_in_another_directory_gets_nothing(tmp_path: Path) -> None:
    agent = FakeAgent("/work/api")
    async with away(tmp_path, agent) as relay:
        await kept(relay, "delete the temporary files")
        agent.places[:] = FakeAgent("/work/other").places
        come_back(relay, directory="/work/other")
        (failed,) = await recorded(relay, MESSAGE_FAILED)
        assert "in another directory has this name now (/work/other)" in failed.data["problem"]
        assert not agent.posted


# -- cancelling and expiring -----------------------------------------------------------------------------------------


async def test_one_that_waits_is_cancelled_also_while_its_machine_is_away(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.add_session("/")
    async with away(tmp_path, agent) as relay:
        handle = await kept(relay, "never mind")
        with pytest.raises(Refused, match=f"{handle} is for “laptop”; nothing was cancelled"):
            await control(relay.face, ["desktop"], "cancel", value=handle)
        done = await control(relay.face, ["laptop"], "cancel", value=handle)
        assert text_of(done) == f"instance “laptop”: {handle} was cancelled, and is not sent."
        assert [entry.data["cancelled_by"] for entry in relay.entries(MESSAGE_CANCELLED)] == [relay.face.caller.login]
        with pytest.raises(Refused, match=f"{handle} for “laptop” was cancelled before; there is nothing to cancel"):
            await control(relay.face, ["all"], "cancel", value=handle)
        # What was taken back is meant anew.
        again = await kept(relay, "never mind")
        assert again != handle
        come_back(relay)
        await recorded(relay, MESSAGE_ANSWERED)
        assert texts(agent) == ["never mind"]
        with pytest.raises(Refused, match=f"{again} for “laptop” was delivered, and its turn is done"):
            await control(relay.face, ["laptop"], "cancel", value=again)


async def test_one_that_was_delivered_is_not_cancelled_and_it_is_said_what_stops_it(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    agent.gate.clear()
    async with away(tmp_path, agent) as relay:
        handle = await kept(relay, "hello")
        come_back(relay)
        await recorded(relay, MESSAGE_DELIVERED)
        with pytest.raises(Refused, match=f"{handle} was delivered to session {session} of “laptop” and runs"):
            relay.outbox.cancel(handle, "laptop", "ann")
        agent.gate.set()
        await recorded(relay, MESSAGE_ANSWERED)


@pytest.mark.parametrize("handle", ["", "m", "m0", "m99999", "s1", "m" + "9" * 40, "m²"])
async def test_what_is_no_handle_of_a_message_cancels_nothing(tmp_path: Path, handle: str) -> None:
    async with away(tmp_path, FakeAgent()) as relay:
        await kept(relay, "hello")
        with pytest.raises(Refused, match="no message that waits has the handle"):
            relay.outbox.cancel(handle, "", "ann")
        assert len(relay.outbox.messages()) == 1


async def test_what_is_too_old_expires_and_is_told_of(tmp_path: Path) -> None:
    agent = FakeAgent()
    clock = [1_000_000_000.0]
    async with fake_copy(tmp_path, {"laptop": agent}, now=lambda: clock[0]) as relay:
        await relay.fleet.find_live("laptop")
        await leave(relay)
        handle = await kept(relay, "hello")
        clock[0] += 14 * DAY - 1
        # The journal forgets nothing that waits, however old it is.
        relay.journal.prune(relay.entries(MESSAGE_ACCEPTED)[0].at + 100 * DAY)
        await asyncio.sleep(0)
        assert [message.handle for message in relay.outbox.messages()] == [handle]
        clock[0] += 1
        await recorded(relay, MESSAGE_EXPIRED)
        (told,) = structured(await inbox(relay.face))["ended"]
        assert (told["result"], told["title"], told["problem"]) == (
            "expired",
            f"{handle}: hello",
            "nothing was sent in 14 days",
        )
        come_back(relay)
        instance = await relay.fleet.find("laptop")
        await asyncio.wait_for(instance.connected.wait(), 20)
        assert relay.outbox.is_empty()
        assert not agent.posted
