"""Messages for instances that are away, where calls are cut and repeated, and names are somebody else's by then."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import delivery as delivery_module
from opencode_fleet import posting as posting_module
from opencode_fleet.errors import Refused
from opencode_fleet.later import Kept
from opencode_fleet.outbox import Draft
from opencode_journal.entries import (
    INSTANCE_LOST,
    MESSAGE_ACCEPTED,
    MESSAGE_ANSWERED,
    MESSAGE_DELIVERED,
    MESSAGE_FAILED,
)
from opencode_mcp.tools.control import control
from opencode_mcp.tools.inbox import inbox
from opencode_mcp.tools.instances import instances
from support.fleet.fake_relay import FakeRelay, fake_relay, move, structured, text_of
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opencode_fleet.model import Outcome, Prompt
    from opencode_journal.entries import Entry


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once where a person would be left to wait for seconds."""
    monkeypatch.setattr(delivery_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(posting_module, "STORED_WITHIN", 0.02)


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""


async def sent(relay: FakeRelay, text: str, name: str = "laptop") -> Outcome | Kept:
    place = await relay.face.later.place(name)
    return await relay.face.later.send(place, Draft(place.name, text, "ann"), ignored)


async def leave(relay: FakeRelay, name: str = "laptop") -> None:
    relay.transport.withdraw(name)
    instance = await relay.fleet.find(name)
    await eventually_async(lambda: instance.offline_since is not None, f"{name} is away")


def come_back(relay: FakeRelay, name: str = "laptop", directory: str = "/") -> None:
    relay.transport.announce(name, "http://127.0.0.1:9", directory=directory)


async def recorded(relay: FakeRelay, kind: str, count: int = 1) -> list[Entry]:
    await eventually_async(lambda: len(relay.entries(kind)) >= count, f"{count} {kind}", within=20)
    return relay.entries(kind)


@asynccontextmanager
async def with_laptop(state_dir: Path, agent: FakeAgent) -> AsyncIterator[FakeRelay]:
    """Run a copy that `laptop` is connected to, with a session."""
    agent.add_session("/")
    async with fake_relay(state_dir, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        yield relay


class Watched(FakeAgent):
    """An agent that tells when it has begun with a message."""

    def __init__(self, *places: str) -> None:
        super().__init__(*places)
        self.has_begun = asyncio.Event()

    async def prompt(self, prompt: Prompt) -> None:
        """See `Agent.prompt`."""
        await super().prompt(prompt)
        self.has_begun.set()


# -- a call that is cut, or repeated while it goes on ----------------------------------------------------------------


async def test_a_call_that_was_cut_and_is_repeated_once_the_machine_is_away_sends_nothing_twice(
    tmp_path: Path,
) -> None:
    agent = Watched()
    agent.gate.clear()
    async with with_laptop(tmp_path, agent) as relay:
        call = asyncio.create_task(sent(relay, "bump the version"))
        await agent.has_begun.wait()
        call.cancel()
        await asyncio.wait({call})
        await leave(relay)
        again = await sent(relay, "bump the version")
        assert isinstance(again, Kept)
        assert again.message.id == agent.posted[0].id
        agent.gate.set()
        come_back(relay)
        (end,) = await recorded(relay, MESSAGE_ANSWERED)
        assert end.session == agent.posted[0].session_id
    assert len(agent.posted) == 1


async def test_a_server_that_ended_in_the_middle_of_such_a_call_leaves_the_next_one_to_look_for_it(
    tmp_path: Path,
) -> None:
    agent = Watched()
    agent.gate.clear()
    async with with_laptop(tmp_path, agent) as relay:
        call = asyncio.create_task(sent(relay, "bump the version"))
        await agent.has_begun.wait()
        call.cancel()
        await asyncio.wait({call})
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        await leave(relay)
        assert isinstance(await sent(relay, "bump the version"), Kept)
        agent.gate.set()
        come_back(relay)
        await recorded(relay, MESSAGE_ANSWERED)
    assert len(agent.posted) == 1


async def test_the_same_call_twice_at_a_time_keeps_one_message(tmp_path: Path) -> None:
    async with with_laptop(tmp_path, FakeAgent()) as relay:
        await leave(relay)
        draft = Draft("laptop", "hello", "ann")
        # As by two copies, neither of which knew of the other's when it began.
        assert relay.outbox.accept(draft) == relay.outbox.accept(draft)
        assert len(relay.entries(MESSAGE_ACCEPTED)) == 1
        assert len(relay.outbox.messages()) == 1


async def test_the_same_call_while_the_first_one_is_being_answered_is_not_kept_besides(tmp_path: Path) -> None:
    agent = Watched()
    agent.gate.clear()
    async with with_laptop(tmp_path, agent) as relay:
        call = asyncio.create_task(sent(relay, "bump the version"))
        await agent.has_begun.wait()
        with pytest.raises(Refused, match="another call is sending this very message"):
            await sent(relay, "bump the version")
        agent.gate.set()
        assert not isinstance(await call, Kept)
        assert relay.outbox.is_empty()
    assert len(agent.posted) == 1


# -- whose name it is by then ----------------------------------------------------------------------------------------


async def test_one_that_only_the_journal_knows_is_still_the_machine_and_directory_it_was(tmp_path: Path) -> None:
    agent = FakeAgent("/work/api")
    async with fake_relay(tmp_path, lost_after=0.0, laptop=agent) as relay:
        await move(relay, "laptop", "laptop")
        relay.transport.withdraw("laptop")
        await recorded(relay, INSTANCE_LOST)
    async with fake_relay(tmp_path, desktop=FakeAgent()) as relay:
        result = await sent(relay, "delete the temporary files")
        assert isinstance(result, Kept)
        assert (result.message.machine, result.message.directory) == ("laptop", "/work/api")


async def test_of_a_plain_account_another_machine_with_that_name_and_directory_gets_nothing(tmp_path: Path) -> None:
    agent = FakeAgent()
    async with with_laptop(tmp_path, agent) as relay:
        await leave(relay)
        assert isinstance(await sent(relay, "delete the temporary files"), Kept)
        relay.transport.announce("laptop", "http://127.0.0.1:9", hostname="stolen.example.org")
        (failed,) = await recorded(relay, MESSAGE_FAILED)
        assert "another machine has this name now (stolen" in failed.data["problem"]
        await leave(relay)
        assert isinstance(await sent(relay, "for the other one"), Kept)
        # The same one, in another network.
        relay.transport.announce("laptop", "http://127.0.0.1:9", hostname="stolen.local")
        await recorded(relay, MESSAGE_ANSWERED)
    assert [prompt.text for prompt in agent.posted] == ["for the other one"]


async def test_a_name_that_moves_while_a_message_is_prepared_gets_nothing(tmp_path: Path) -> None:
    agent = FakeAgent("/work/api")
    agent.add_session("/work/api")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        await leave(relay)
        assert isinstance(await sent(relay, "delete the temporary files"), Kept)
        agent.telling.clear()
        agent.asked.clear()
        come_back(relay, directory="/work/api")
        await eventually_async(lambda: agent.asked, "its sessions are asked for")
        agent.places[:] = FakeAgent("/work/other").places
        come_back(relay, directory="/work/other")
        await eventually_async(lambda: instance.state.directory == "/work/other", "the name has moved")
        agent.telling.set()
        (failed,) = await recorded(relay, MESSAGE_FAILED)
        assert "in another directory has this name now (/work/other)" in failed.data["problem"]
    assert not agent.posted


# -- what is said of them --------------------------------------------------------------------------------------------


async def test_the_inbox_says_how_to_take_back_what_waits_and_how_to_stop_what_runs(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.gate.clear()
    async with with_laptop(tmp_path, agent) as relay:
        await leave(relay)
        handles = []
        for text in ("first", "second"):
            kept = await sent(relay, text)
            assert isinstance(kept, Kept)
            handles.append(kept.message.handle)
        assert "\n2 messages wait for an instance:\n" in f"\n{text_of(await inbox(relay.face))}"
        come_back(relay)
        await recorded(relay, MESSAGE_DELIVERED)
        told = await inbox(relay.face)
        text = text_of(told)
        assert "1 message waits for an instance, and 1 message that waited is on the way:" in text
        session = structured(told)["messages"][0]["session_handle"]
        assert f"{handles[0]} · laptop · {session} · runs there, now by ann" in text
        assert f"action='cancel', value='{handles[1]}'. `control` stops one that runs: action='stop', " in text
        assert f"session='{session}'." in text
        assert "1 message waits for it" in text_of(await instances(relay.face))
        with pytest.raises(Refused, match=f"was delivered to session {session} of “laptop” and runs"):
            await control(relay.face, ["laptop"], "cancel", value=handles[0])
        with pytest.raises(Refused, match="`value` is the handle of the message"):
            await control(relay.face, ["laptop"], "cancel")
        agent.gate.set()
        await recorded(relay, MESSAGE_ANSWERED, 2)


async def test_the_log_has_each_step_and_not_a_word_of_what_was_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "opencode_fleet.outbox")
    async with with_laptop(tmp_path, FakeAgent()) as relay:
        await leave(relay)
        kept = [await sent(relay, text) for text in ("a secret", "never mind")]
        handles = [each.message.handle for each in kept if isinstance(each, Kept)]
        await control(relay.face, ["laptop"], "cancel", value=handles[1])
        come_back(relay)
        await recorded(relay, MESSAGE_ANSWERED)
    steps = [(0, "kept"), (1, "kept"), (1, "cancelled"), (0, "delivered"), (0, "answered")]
    assert caplog.messages == [f"{handles[number]} for “laptop”, of ann: {step}" for number, step in steps]
