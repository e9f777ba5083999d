"""Conversations of megabytes over a slow line: in pages that fit it, and what arrives slowly is no failure."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.agents import connect
from opencode_fleet.agents.http import TooLarge
from opencode_fleet.agents.pages import FIRST_PAGE
from opencode_fleet.drive import Driver
from opencode_fleet.errors import BadAnswer, Refused, Unresponsive
from opencode_fleet.message_pages import newest_page, page_before
from opencode_mcp.face import Face
from opencode_mcp.tools import read as read_module
from opencode_mcp.tools.read import read
from support.fleet.fake_transport import FakeTransport
from support.fleet.notes import Notes
from support.fleet.running import a_fleet_over
from support.line.fake_slow_line import SlowLine
from support.opencodes.connected import client_for
from support.opencodes.fake_conversation import HOME, FakeConversation, FakeDrip
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.agent import Agent

GENERATIONS = pytest.mark.parametrize("generation", [1, 2])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times a tenth as long as they are, so that a tenth of the data does."""
    monkeypatch.setattr("opencode_fleet.agents.http.REQUEST_TIMEOUT", 2.0)
    monkeypatch.setattr("opencode_fleet.agents.pages.PAGE_SECONDS", 0.2)
    monkeypatch.setattr("opencode_fleet.agents.opencode1.agent.HEARTBEAT_GRACE", 1.5)
    monkeypatch.setattr("opencode_fleet.agents.opencode2.agent.HEARTBEAT_GRACE", 1.5)
    monkeypatch.setattr(read_module, "PROGRESS_INTERVAL", 0.2)


@asynccontextmanager
async def agent_of(fake: FakeConversation) -> AsyncIterator[Agent]:
    async with fake:
        client = client_for(fake.url)
        try:
            yield await connect(client)
        finally:
            await client.aclose()


def ids(first: int, end: int) -> list[str]:
    return [f"msg_{number}" for number in range(first, end)]


def port_of(fake: FakeConversation) -> int:
    return int(fake.url.rpartition(":")[2])


@GENERATIONS
@pytest.mark.usefixtures("impatient")
async def test_megabytes_come_over_a_slow_line_in_pages_that_fit_it_and_the_instance_stays(generation: int) -> None:
    fake = FakeConversation(generation, count=12, size=50_000, heartbeat=0.2)
    transport, notes = FakeTransport(), Notes()
    async with (
        fake,
        SlowLine(port_of(fake), 100_000, queue=300_000) as line,
        a_fleet_over(transport, health_timeout=5.0) as fleet,
    ):
        transport.announce("laptop", f"http://127.0.0.1:{line.port}", directory=HOME)
        instance = await eventually_async(lambda: fleet.find_live("laptop"), "the instance", within=30)
        driver = Driver(fleet, 30)
        answer = await read(Face(fleet, driver), notes.context(), "laptop", 10, max_chars=200_000)
        assert answer.structured_content is not None
        assert [len(row["text"]) for row in answer.structured_content["messages"][-3:]] == [50_000] * 3
        assert line.carried > 500_000
        # It never was unresponsive: its one stream of events was not opened anew.
        assert len(fake.streams) == 1
        assert instance.state_name() == "idle"
    assert fake.pages[0] == FIRST_PAGE
    assert max(fake.pages[1:]) < FIRST_PAGE
    told = [float(note.split()[0]) for note in notes]
    assert len(told) > 3
    assert told == sorted(told)
    assert "kB of the conversation came" in notes[0]


@pytest.mark.usefixtures("impatient")
async def test_where_nobody_tells_how_to_go_on_all_comes_at_once_however_slowly() -> None:
    fake = FakeConversation(1, count=12, size=30_000, tells_pages=False, heartbeat=0.2)
    async with fake, SlowLine(port_of(fake), 100_000, queue=300_000) as line:
        client = client_for(f"http://127.0.0.1:{line.port}")
        agent = await connect(client)
        found = await agent.messages("ses_1", 10)
        again = await agent.messages("ses_1", 3)
        await client.aclose()
    assert [message.id for message in found] == ids(2, 12)
    assert [message.id for message in again] == ids(9, 12)
    assert fake.pages == [FIRST_PAGE, 10, 3]


@GENERATIONS
async def test_on_a_fast_line_pages_grow_until_one_is_enough(generation: int) -> None:
    fake = FakeConversation(generation, count=200, size=100)
    async with agent_of(fake) as agent:
        assert [message.id for message in await agent.messages("ses_1", 60)] == ids(140, 200)
        assert len(fake.pages) > 1
        fake.pages.clear()
        assert [message.id for message in await agent.messages("ses_1", 60)] == ids(140, 200)
        assert len(fake.pages) == 1


@GENERATIONS
async def test_page_after_page_the_whole_conversation_is_read_back_to_its_beginning(generation: int) -> None:
    fake = FakeConversation(generation, count=100, size=10)
    async with agent_of(fake) as agent:
        page = await newest_page(agent, "ses_1", 30)
        pages = [page]
        while page.has_older:
            page = await page_before(agent, "ses_1", page.messages[0].id, 30)
            pages.insert(0, page)
        assert [len(each.messages) for each in pages] == [10, 30, 30, 30]
        assert [message.id for each in pages for message in each.messages] == ids(0, 100)
        assert await page_before(agent, "ses_1", "msg_0", 30) == ([], False)
        with pytest.raises(Refused, match="msg_nobody is no message of session ses_1, or too far back"):
            await page_before(agent, "ses_1", "msg_nobody", 30)


@GENERATIONS
async def test_an_old_page_is_looked_for_no_further_back_than_it_begins(generation: int) -> None:
    fake = FakeConversation(generation, count=1_000, size=10)
    async with agent_of(fake) as agent:
        assert len((await page_before(agent, "ses_1", "msg_990", 5)).messages) == 5
        assert sum(fake.pages) < 100


@GENERATIONS
@pytest.mark.parametrize("count", [0, 1, FIRST_PAGE, FIRST_PAGE + 1])
async def test_a_short_conversation_comes_whole(generation: int, count: int) -> None:
    fake = FakeConversation(generation, count=count, size=10)
    async with agent_of(fake) as agent:
        for _ in range(2):
            assert [message.id for message in await agent.messages("ses_1", 50)] == ids(0, count)
        assert [message.id for message in await agent.messages("ses_1", 1)] == ids(0, count)[-1:]


@GENERATIONS
async def test_messages_that_are_too_large_together_come_one_by_one_as_far_as_they_may(generation: int) -> None:
    fake = FakeConversation(generation, count=12, size=3 << 20)
    async with agent_of(fake) as agent:
        found = await agent.messages("ses_1", 5)
    assert [message.id for message in found] == ids(12 - len(found), 12)
    assert len(found) >= 3
    assert fake.pages[:2] == [FIRST_PAGE, 1]


@GENERATIONS
async def test_one_message_that_is_too_large_hides_none_that_came_after_it(generation: int) -> None:
    fake = FakeConversation(generation, count=12, size=10)
    fake.enlarge(3)
    async with agent_of(fake) as agent:
        assert [message.id for message in await agent.messages("ses_1", 10)] == ids(4, 12)
        assert [answer.id for answer in (await agent.turn("ses_1", "msg_8")).answers] == ["msg_9"]
        assert not (await agent.turn("ses_1", "msg_nobody")).is_stored
        fake.enlarge(11)
        with pytest.raises(BadAnswer, match="more than 8 MiB"):
            await agent.messages("ses_1", 10)


@GENERATIONS
async def test_a_session_whose_newest_message_is_too_large_can_be_sent_to(generation: int) -> None:
    fake, transport = FakeConversation(generation, count=2, size=10), FakeTransport()
    fake.enlarge(1)
    async with fake, a_fleet_over(transport, health_timeout=5.0) as fleet:
        transport.announce("laptop", fake.url, directory=HOME)
        instance = await eventually_async(lambda: fleet.find_live("laptop"), "the instance", within=30)
        chosen = await Driver(fleet, 30).sessions.to_drive(instance, "ses_1")
    assert (chosen.session.id, chosen.note) == ("ses_1", "")


@GENERATIONS
async def test_an_entry_of_another_shape_hides_none_before_it_where_pages_are_small(
    generation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opencode_fleet.agents.pages.PAGE_SECONDS", 0.0)  # one message a page, after the first
    fake = FakeConversation(generation, count=12, size=10)
    fake.messages[5] = {"id": "no id at all!"}
    async with agent_of(fake) as agent:
        assert [message.id for message in await agent.messages("ses_1", 10)][-9:] == [*ids(2, 5), *ids(6, 12)]
    assert 1 in fake.pages


@GENERATIONS
async def test_a_page_that_leads_to_itself_is_read_twice_and_shown_once(generation: int) -> None:
    fake = FakeConversation(generation, count=12, size=10)
    fake.cursors = itertools.repeat("12")
    async with agent_of(fake) as agent:
        found = await agent.messages("ses_1", 200)
    assert [message.id for message in found] == ids(0, 12)
    assert len(fake.pages) == 2


@GENERATIONS
async def test_pages_that_never_end_are_given_up(generation: int) -> None:
    fake = FakeConversation(generation, count=1, size=10)
    # The same page each time, by another name.
    fake.cursors = ("1".zfill(width) for width in itertools.count(2))
    async with agent_of(fake) as agent:
        assert not (await agent.turn("ses_1", "msg_nobody")).is_stored
        assert len(fake.pages) <= 60
        fake.pages.clear()
        assert [message.id for message in await agent.messages("ses_1", 200)] == ids(0, 1)
    assert len(fake.pages) == 60


@GENERATIONS
async def test_a_turn_s_end_is_looked_up_no_further_back_than_it_began(generation: int) -> None:
    fake = FakeConversation(generation, count=100, size=100)
    async with agent_of(fake) as agent:
        record = await agent.turn("ses_1", "msg_98")
        assert [answer.id for answer in record.answers] == ["msg_99"]
        assert fake.pages == [FIRST_PAGE]
        assert (await agent.turn("ses_1", "msg_70")).is_stored
        assert (await agent.turn("ses_1", "msg_2")).is_stored, "however long ago"
        assert not (await agent.turn("ses_1", "msg_nobody")).is_stored


async def test_what_is_silent_or_drips_is_given_up_also_while_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencode_fleet.agents.http.REQUEST_TIMEOUT", 0.4)
    async with FakeDrip() as fake:
        client = client_for(fake.url)
        flowing = asyncio.create_task(client.call("GET", "/flows", limit=64 << 20))
        async with asyncio.timeout(60):
            for path in ("/drips", "/silent"):
                with pytest.raises(Unresponsive):
                    await client.call("GET", path)
        assert not flowing.done()
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
        await client.aclose()


async def test_what_arrives_without_an_end_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencode_fleet.agents.http.REQUEST_TIMEOUT", 0.4)
    async with FakeDrip() as fake:
        client = client_for(fake.url)
        # Before it has as many bytes as it may have.
        with pytest.raises(Unresponsive):
            await client.call("GET", "/flows")
        await client.aclose()


async def test_what_says_that_it_is_too_large_is_not_waited_for() -> None:
    async with FakeDrip() as fake:
        client = client_for(fake.url)
        with pytest.raises(TooLarge):
            await client.call("GET", "/large")
        await client.aclose()
