"""One message to several instances: each takes it or says why not, nobody waits, and nothing is sent twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet.drive import Driver
from opencode_fleet.errors import NoSuchInstance, Refused, Unreachable
from opencode_mcp.face import Face
from opencode_mcp.tools import send as send_module
from opencode_mcp.tools.control import control
from opencode_mcp.tools.send import send
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.fleet import Fleet


def called(fleet: Fleet, driver: Driver, instance: list[str], **more: Any) -> Any:
    return send(Face(fleet, driver), Notes().context(), instance, "hello", **more)


def rows(answer: Any) -> dict[str, str]:
    """Return the result of each instance."""
    return {row["instance"]: row["result"] for row in answer.structured_content["sent"]}


async def test_each_takes_the_message_or_says_why_not_and_no_turn_is_waited_for() -> None:
    free, busy, broken = FakeAgent(), FakeAgent(), FakeAgent()
    for agent in (free, busy, broken):
        agent.gate.clear()
    async with fake_fleet(free=free, busy=busy, broken=broken) as (fleet, _):
        driver = Driver(fleet, 30)
        running = asyncio.create_task(driver.send(await fleet.find_live("busy"), "first", None, Notes().take))
        await eventually_async(lambda: busy.statuses, "its turn")
        await fleet.find_live("broken")
        broken.trouble = Unreachable("the line broke", refused=True)
        answer = await called(fleet, driver, ["all"])
        assert rows(answer) == {"free": "running", "busy": "refused", "broken": "failed"}
        assert answer.structured_content["result"] == "sent"
        text = answer.content[0].text
        assert text.startswith("1 of 3 took the message.")
        assert "is busy in session" in text
        assert "the line broke" in text
        assert [len(agent.posted) for agent in (free, busy, broken)] == [1, 1, 0]
        broken.trouble = None
        busy.gate.set()
        await running


async def test_all_is_said_alone_in_any_case_and_is_never_a_part_of_a_name() -> None:
    agents = {name: FakeAgent() for name in ("wall-pi", "laptop")}
    async with fake_fleet(**agents) as (fleet, _):
        face = Face(fleet, Driver(fleet, 30))
        for names in (["all", "laptop"], ["laptop", " ALL"], ["all", "all"]):
            with pytest.raises(Refused, match="'all' stands alone"):
                await send(face, Notes().context(), names, "hello")
            with pytest.raises(Refused, match="'all' stands alone"):
                await control(face, names, "stop")
        with pytest.raises(Refused, match="only “stop”"):
            await control(face, ["ALL"], "fork")
        assert [agent.posted for agent in agents.values()] == [[], []]

        assert set(rows(await called(fleet, face.driver, ["All"]))) == set(agents)


async def test_names_are_matched_each_and_one_that_is_not_clear_sends_nothing() -> None:
    agents = {name: FakeAgent() for name in ("office_api", "office_web", "laptop")}
    async with fake_fleet(**agents) as (fleet, _):
        driver = Driver(fleet, 30)
        with pytest.raises(NoSuchInstance, match="fits several instances"):
            await called(fleet, driver, ["laptop", "office"])
        assert not any(agent.posted for agent in agents.values())
        # Two names of one instance are one.
        answer = await called(fleet, driver, ["lap", "laptop", "web"])
        assert rows(answer) == {"laptop": "running", "office-web": "running"}
        assert [len(agent.posted) for agent in agents.values()] == [0, 1, 1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"abort": True}, "`abort` is for one instance at a time"),
        ({"session": "ses_1"}, "of several instances `session` can only be 'new'"),
    ],
)
async def test_what_is_about_one_conversation_is_refused(more: dict[str, Any], said: str) -> None:
    one, other = FakeAgent(), FakeAgent()
    async with fake_fleet(one=one, other=other) as (fleet, _):
        with pytest.raises(Refused, match=said):
            await called(fleet, Driver(fleet, 30), ["one", "other"], **more)
        assert not one.posted
        assert not other.posted


async def test_all_means_no_more_than_a_person_can_look_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_module, "MAX_INSTANCES", 1)
    one, other = FakeAgent(), FakeAgent()
    async with fake_fleet(one=one, other=other) as (fleet, _):
        with pytest.raises(Refused, match="2 instances are there, and a message goes to 1 at most: name them"):
            await called(fleet, Driver(fleet, 30), ["all"])
        assert not one.posted


async def test_a_call_that_was_cut_off_and_is_repeated_sends_nothing_twice() -> None:
    quick, slow = FakeAgent(), FakeAgent()
    held = asyncio.Event()
    create = slow.create

    async def hold(directory: str) -> Any:
        await held.wait()
        return await create(directory)

    slow.create = hold  # type: ignore[method-assign]
    quick.gate.clear()
    async with fake_fleet(quick=quick, slow=slow) as (fleet, _):
        driver = Driver(fleet, 30)
        call = asyncio.create_task(called(fleet, driver, ["all"]))
        await eventually_async(lambda: quick.posted, "the first message")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        held.set()
        answer = await called(fleet, driver, ["all"])
        assert rows(answer) == {"quick": "running", "slow": "running"}
        assert [len(quick.posted), len(slow.posted)] == [1, 1]
        (again,) = (row for row in answer.structured_content["sent"] if row["instance"] == "quick")
        assert "nothing was sent again" in again["note"]
