"""`read`: older messages by cursor, what tool calls changed, and what is known of a machine that is away."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet import message_pages
from opencode_fleet.agents.parallel import AT_ONCE
from opencode_fleet.drive import Driver
from opencode_fleet.errors import NotFound, Refused, Unreachable
from opencode_fleet.message_pages import MAX_DETAILED
from opencode_fleet.model import Message, Part, ToolCall
from opencode_mcp.face import Face
from opencode_mcp.tools.read import read
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from mcp_types import CallToolResult

    from opencode_fleet.fleet import Fleet
    from opencode_fleet.model import Session

HOME = "/home/ann/api"
GONE = Unreachable("the line is cut", refused=True)


def a_conversation(agent: FakeAgent, count: int) -> Session:
    """Give an agent a session with so many messages: `msg_0`, `msg_1`, …"""
    session = agent.add_session(HOME, "a title")
    for number in range(count):
        part = Part(id=f"prt_{number}", kind="text", text=f"words {number}")
        message = Message(
            id=f"msg_{number}",
            session_id=session.id,
            role="assistant" if number % 2 else "user",
            parts=(part,),
            completed=1.0,
        )
        agent.conversations[session.id].append(message)
    return session


async def ask(fleet: Fleet, **arguments: Any) -> CallToolResult:
    return await read(Face(fleet, Driver(fleet, 30)), Notes().context(), "laptop", **arguments)


def result(answer: CallToolResult) -> dict[str, Any]:
    return answer.structured_content or {}


def text(answer: CallToolResult) -> str:
    return "\n".join(getattr(block, "text", "") for block in answer.content)


async def is_in(fleet: Fleet, state: str) -> bool:
    return [instance.state_name() for instance in await fleet.instances()] == [state]


# -- older messages --------------------------------------------------------------------------------------------------


async def test_older_messages_are_read_by_what_the_result_before_leads_to() -> None:
    agent = FakeAgent(HOME)
    a_conversation(agent, 7)
    seen: list[str] = []
    async with fake_fleet(laptop=agent) as (fleet, _):
        answer = await ask(fleet, message_limit=3)
        assert "Older messages: `read` with before=msg_4." in text(answer)
        while True:
            seen = [*(row["id"] for row in result(answer)["messages"]), *seen]
            if "older" not in result(answer):
                break
            answer = await ask(fleet, message_limit=3, before=result(answer)["older"])
        assert "Older messages" not in text(answer)
        with pytest.raises(Refused, match="msg_none is no message of session"):
            await ask(fleet, before="msg_none")
    assert seen == [f"msg_{number}" for number in range(7)]


async def test_what_was_cut_for_its_length_is_read_with_the_next_page() -> None:
    agent = FakeAgent(HOME)
    session = a_conversation(agent, 4)
    long = Part(id="prt_x", kind="text", text="x" * 2_000)
    agent.conversations[session.id][2] = replace(agent.conversations[session.id][2], parts=(long,))
    async with fake_fleet(laptop=agent) as (fleet, _):
        answer = await ask(fleet, max_chars=1_000)
        assert [row["role"] for row in result(answer)["messages"]] == ["note", "user", "assistant"]
        assert result(answer)["older"] == "msg_2"
        older = await ask(fleet, before="msg_2")
        assert [row["id"] for row in result(older)["messages"]] == ["msg_0", "msg_1"]


async def test_an_old_page_s_end_is_not_taken_for_a_turn_without_an_answer() -> None:
    agent = FakeAgent(HOME)
    a_conversation(agent, 3)
    async with fake_fleet(laptop=agent) as (fleet, _):
        assert "has no answer" in result(await ask(fleet))["problem"]
        assert "problem" not in result(await ask(fleet, before="msg_1"))


# -- details ---------------------------------------------------------------------------------------------------------


def a_call(number: int, **more: Any) -> Message:
    call = ToolCall(name="edit", title="a.py", status="completed", **more)
    part = Part(id=f"prt_{number}", kind="tool", call=call)
    return Message(id=f"msg_{number}", session_id="ses_1", role="assistant", parts=(part,), completed=1.0)


async def test_what_calls_changed_is_fetched_on_request_of_the_newest_only() -> None:
    agent = FakeAgent(HOME)
    session = a_conversation(agent, 0)
    agent.conversations[session.id] = [a_call(number) for number in range(MAX_DETAILED + 2)]
    agent.whole = {f"msg_{number}": a_call(number, diff=f"+line {number}") for number in range(MAX_DETAILED + 1)}
    async with fake_fleet(laptop=agent) as (fleet, _):
        shown = text(await ask(fleet, message_limit=100, details=True))
        assert "+line" not in text(await ask(fleet, message_limit=100))
    # The two oldest are too many; the newest one is gone meanwhile, and stays as it was listed.
    assert [number for number in range(MAX_DETAILED + 2) if f"+line {number}\n" in f"{shown}\n"] == list(
        range(2, MAX_DETAILED + 1)
    )
    assert shown.count("[edit: completed] a.py") == MAX_DETAILED + 2


async def test_what_is_fetched_of_many_calls_has_bounds_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_pages, "MAX_DETAILS", 100_000)
    agent = FakeAgent(HOME)
    session = a_conversation(agent, 0)
    messages = [a_call(number) for number in range(MAX_DETAILED)]
    agent.whole = {f"msg_{number}": a_call(number, diff="+" * 30_000, output="=" * 30_000) for number in range(20)}
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        found = await message_pages.with_details(instance.agent, session.id, messages)
    calls = [part.call for message in found for part in message.parts if part.call is not None]
    # The newest of them, up to those that are on their way when there is room for no more.
    assert [bool(call.diff) for call in calls] == sorted(bool(call.diff) for call in calls)
    assert 2 <= sum(bool(call.diff) for call in calls) <= 2 + AT_ONCE
    assert {(len(call.diff), len(call.output)) for call in calls} == {(0, 0), (10_000, 10_000)}


# -- a machine that is away ------------------------------------------------------------------------------------------


async def test_of_a_machine_that_is_away_the_last_that_was_heard_is_shown_with_its_age() -> None:
    agent = FakeAgent(HOME)
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        face = Face(fleet, Driver(fleet, 0.1))
        instance = await fleet.find_live("laptop")
        sent = await face.driver.send(instance, "ask me", None, Notes().take)
        agent.fail(GONE)
        await eventually_async(partial(is_in, fleet, "offline"))
        answer = await ask(fleet)
        shown = result(answer)
    assert not answer.is_error
    assert (shown["session"], shown["state"], shown["problem"]) == (
        sent.session_id,
        "offline",
        "nothing listens at its port",
    )
    assert shown["known"] > 1e9
    assert [row["text"] for row in shown["messages"]] == [
        "it waited for the person",
        f"it waited for {shown['asks'][0]['handle']}: bash ask me",
    ]
    assert [row["id"] for row in shown["asks"]] == [sent.asks[0].id]
    assert ", offline; this was known at 20" in text(answer)


async def test_what_it_was_writing_is_kept() -> None:
    agent = FakeAgent(HOME)
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        session = agent.add_session(HOME)
        instance.state.reset(HOME, await agent.runs(), [session])
        agent.tell_busy(session.id, "half a sen")
        await eventually_async(lambda: instance.state.live(session.id).text == "half a sen")
        agent.fail(GONE)
        await eventually_async(partial(is_in, fleet, "offline"))
        rows = result(await ask(fleet))["messages"]
    assert [row["text"] for row in rows] == ["it was at work", "half a sen [… was being written]"]


async def test_of_what_it_was_writing_no_more_is_shown_than_was_asked_for() -> None:
    agent = FakeAgent(HOME)
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        session = agent.add_session(HOME)
        instance.state.reset(HOME, await agent.runs(), [session])
        agent.tell_busy(session.id, "begin " + "x" * 50_000 + " end")
        await eventually_async(lambda: instance.state.live(session.id).text.endswith(" end"))
        agent.fail(GONE)
        await eventually_async(partial(is_in, fleet, "offline"))
        for most in (1_000, 1_200, 2_000):
            answer = await ask(fleet, max_chars=most)
            assert len(text(answer)) <= most
            assert " end [… was being written]" in text(answer)


async def test_where_nothing_is_known_of_it_the_reason_is_said() -> None:
    agent = FakeAgent(HOME)
    agent.add_session(HOME)
    async with fake_fleet(laptop=agent) as (fleet, _):
        await fleet.find_live("laptop")
        agent.fail(GONE)
        await eventually_async(partial(is_in, fleet, "offline"))
        with pytest.raises(Unreachable, match="is offline since"):
            await ask(fleet, session="ses_nobody")
        agent.trouble = None
        await eventually_async(partial(is_in, fleet, "idle"), within=30)
        with pytest.raises((NotFound, Refused), match="ses_nobody"):
            await ask(fleet, session="ses_nobody")
