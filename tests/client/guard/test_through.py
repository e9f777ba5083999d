"""The server's own agents do through the guard all that they do: turns, asks, questions and events."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import pytest

from client.guard.guarded import CREDENTIALS, opened
from opencode_connected.guard.policy import Right
from opencode_fleet.agents import connect
from opencode_fleet.agents.http import AgentClient
from opencode_fleet.agents.pages import FIRST_PAGE
from opencode_fleet.errors import Forbidden, NotFound
from opencode_fleet.events import AskOpened, AskSettled, StatusChanged
from opencode_fleet.model import Permission, Question
from opencode_fleet.transports.base import Endpoint
from support.opencodes.connected import listening, post
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from client.guard.guarded import Agent, Guarded
    from opencode_fleet.agent import Agent as Driven
    from support.opencodes.connected import Heard


@pytest.fixture
async def driven(agent: Agent, guard: Guarded) -> AsyncIterator[Driven]:
    """The server's agent of that generation, connected to the guard's port."""
    endpoint = Endpoint("laptop", f"http://127.0.0.1:{guard.port}", "laptop.example", str(agent.directory))
    client = AgentClient(endpoint, 20.0)
    client.authorize(*CREDENTIALS)
    try:
        yield await connect(client)
    finally:
        await client.aclose()


async def test_a_turn_with_an_ask_and_a_question_goes_through(agent: Agent, driven: Driven) -> None:
    assert driven.version == agent.target.version
    assert driven.rights == frozenset({"observe", "drive", "approve"})
    directory = str(agent.directory)
    session = await driven.create(directory)
    assert session.directory == directory
    async with listening(driven) as heard:
        prompt = await post(driven, session.id, "[BASH:echo through] [ASK:which colour?]")
        ask = (await heard.first(AskOpened, lambda event: isinstance(event.ask, Permission))).ask
        assert isinstance(ask, Permission)
        assert ask in (await driven.runs()).asks
        assert session.id in (await driven.runs()).statuses
        await driven.reply(ask, "once", None)
        question = (await heard.first(AskOpened, lambda event: isinstance(event.ask, Question))).ask
        assert isinstance(question, Question)
        await driven.answer(question, [["blue"]])
        await heard.until_idle(session.id)
        settled = [event.ask_id for event in heard.of(AskSettled, session.id)]
        assert {ask.id, question.id} <= set(settled)
    record = await driven.turn(session.id, prompt.id)
    assert record.is_stored
    assert "blue" in record.answers[-1].text
    assert session.id in {found.id for found in await driven.sessions(directory, 100)}
    assert directory in {place.directory for place in (await driven.snapshot()).workplaces}
    await driven.show(session)


async def test_an_ask_is_declined_and_a_turn_interrupted_through_it(agent: Agent, driven: Driven) -> None:
    session = await driven.create(str(agent.directory))
    async with listening(driven) as heard:
        await post(driven, session.id, "[ASK:which?]")
        question = (await heard.first(AskOpened)).ask
        assert isinstance(question, Question)
        await driven.decline(question)
        await heard.until_idle(session.id)
        second = await driven.create(str(agent.directory))
        await post(driven, second.id, "SLOW:400:0.25")
        await eventually_async(lambda: runs(driven, second.id), "the second turn", within=90)
        await driven.interrupt(second.id)
        await heard.until_idle(second.id)


async def runs(driven: Driven, session_id: str) -> bool:
    return session_id in (await driven.runs()).statuses


async def test_what_is_not_let_through_is_said_in_the_guards_words(
    agent: Agent, guard: Guarded, driven: Driven, tmp_path: Path
) -> None:
    session = await driven.create(str(agent.directory))
    with pytest.raises(Forbidden, match="not opened"):
        await driven.create(str(tmp_path))
    guard.policy[0] = opened(agent.directory, rights=[Right.OBSERVE])
    with pytest.raises(Forbidden, match="`drive`"):
        await post(driven, session.id, "hello")
    with pytest.raises(Forbidden, match="`approve`"):
        await driven.reply(Permission(id="per_a", session_id=session.id, action="bash"), "once", None)
    with pytest.raises(NotFound):
        await driven.session("ses_0123456789")


async def test_a_conversation_of_several_pages_comes_whole_and_in_order(agent: Agent, driven: Driven) -> None:
    session = await driven.create(str(agent.directory))
    async with listening(driven) as heard:
        for number in range(3):
            await post(driven, session.id, f"message {number}")
            await eventually_async(
                partial(has_ended, heard, session.id, number + 1), "the end of the turn", within=90
            )
    messages = await driven.messages(session.id, 6)
    assert len(messages) == 6 > FIRST_PAGE
    asked = [f"message {number}" for number in range(3)]
    assert [message.text for message in messages] == [text for each in asked for text in (each, f"echo: {each}")]
    assert [message.id for message in await driven.messages(session.id, 3)] == [
        message.id for message in messages[-3:]
    ]


def has_ended(heard: Heard, session_id: str, times: int) -> bool:
    """Tell whether the session became idle so often after it ran."""
    told = [event.status is None for event in heard.of(StatusChanged, session_id)]
    return sum(is_idle and not before for before, is_idle in itertools.pairwise([True, *told])) >= times
