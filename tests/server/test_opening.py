"""New instances from afar: opened on the machine that is meant, seen in the fleet, and closed as it was shown."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import opening
from opencode_fleet.agent import Capability
from opencode_fleet.drive import Driver
from opencode_fleet.errors import BadAnswer, Forbidden, NoSuchInstance, Refused
from opencode_fleet.events import StatusChanged
from opencode_fleet.fleet import Fleet
from opencode_fleet.model import Status
from opencode_fleet.opening import Opener
from opencode_fleet.settings import ServerSettings
from opencode_mcp.face import Face
from opencode_mcp.tools.control import control
from support.fleet.fake_relay import structured, text_of
from support.fleet.fake_transport import FakeTransport
from support.opencodes.fake_agent import FakeAgent, FakeAgents, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


API = "/home/ann/api"


@asynccontextmanager
async def opening_on(**agents: FakeAgent) -> AsyncIterator[tuple[Fleet, Opener]]:
    """Run a fleet, and give what opens on its machines."""
    async with fake_fleet(**agents) as (fleet, _):
        for name in agents:
            await fleet.find_live(name.replace("_", "-"))
        yield fleet, Opener(fleet)


def an_agent(*places: str) -> FakeAgent:
    return FakeAgent(*(places or ("/home/ann",)), can=frozenset({Capability.DIRECTORIES, Capability.OUTLIVES}))


async def test_a_new_instance_is_named_once_it_can_be_sent_to() -> None:
    agent = an_agent()
    async with opening_on(laptop=agent) as (fleet, opener):
        done = await opener.open("laptop", "~/api")
        assert done.result == "done"
        assert API in done.says
        assert "`send` to it by that name" in done.says
        assert (await fleet.find_live(done.instance)).state.directory == API
        again = await opener.open("laptop", " ~/api ")
        assert (again.result, again.instance) == ("nothing", done.instance)
        assert "is open already" in again.says
    assert agent.controls.did == [f"open {API}"] * 2
    assert [place.directory for place in agent.places] == ["/home/ann", API]


async def test_a_machine_is_meant_by_its_own_name_too() -> None:
    agents = {"attic_work": an_agent(), "cellar_work": an_agent("/home/ben")}
    async with opening_on(**agents) as (fleet, opener):
        done = await opener.open("attic", "~/api")
        assert (await fleet.find_live(done.instance)).shares_with(await fleet.find_live("attic-work"))
        # What all of them are called, as machines of a plain account may be.
        assert (await opener.open("elsewhere", "~/api")).result in {"done", "nothing"}
        with pytest.raises(NoSuchInstance):
            await opener.open("nowhere", "~/api")
        with pytest.raises(NoSuchInstance):
            await opener.open("", "~/api")


async def test_an_enrolled_machine_is_not_what_it_calls_itself() -> None:
    agent = an_agent()
    found = FakeAgents(desk_work=agent)
    transport = FakeTransport()
    async with Fleet(transport, ServerSettings(health_timeout=5), found.find).running() as fleet:
        transport.announce("desk-work", "http://127.0.0.1:9", directory="/home/ann", client="desk")
        await fleet.find_live("desk-work")
        opener = Opener(fleet)
        with pytest.raises(NoSuchInstance):
            await opener.open("elsewhere", "~/api")
        assert (await opener.open("desk", "~/api")).instance == "desk-api"


async def test_what_its_owner_does_not_allow_is_said_in_the_guard_s_words() -> None:
    agent = an_agent()
    async with opening_on(laptop=agent) as (fleet, opener):
        agent.controls.breaks = Forbidden("“laptop”: choose a directory in or below /home/ann/work")
        with pytest.raises(Forbidden, match="choose a directory"):
            await opener.open("laptop", "/etc")
        with pytest.raises(Forbidden, match="choose a directory"):
            await opener.close(await fleet.find_live("laptop"))


async def test_what_is_not_known_is_said_to_be_so() -> None:
    agent = an_agent()
    async with opening_on(laptop=agent) as (fleet, opener):
        agent.controls.breaks = BadAnswer("it broke off")
        done = await opener.open("laptop", "~/api")
        assert done.result == "unknown"
        assert "whether it was opened is not known; the same call again" in done.says
        done = await opener.close(await fleet.find_live("laptop"))
        assert done.result == "unknown"
        assert "whether it was closed is not known" in done.says


async def test_one_that_is_not_seen_in_time_is_open_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SEEN_WITHIN", 0.05)
    agent = an_agent()
    async with opening_on(laptop=agent) as (_, opener):
        monkeypatch.setattr(agent, "tell", lambda _event: None)
        done = await opener.open("laptop", "~/api")
    assert done.result == "unknown"
    assert "`instances` lists it soon" in done.says


async def test_a_caller_that_goes_away_leaves_it_to_be_brought_to_its_end() -> None:
    agent = an_agent()
    async with opening_on(laptop=agent) as (_, opener):
        agent.controls.gate.clear()
        call = asyncio.create_task(opener.open("laptop", "~/api"))
        await eventually_async(lambda: len(agent.places) == 2, "it is asked for")
        call.cancel()
        await asyncio.wait({call})
        agent.controls.gate.set()
        await eventually_async(lambda: agent.controls.did == [f"open {API}"], "it is done")
        assert (await opener.open("laptop", "~/api")).result == "nothing"


async def test_what_was_opened_at_the_desk_is_not_even_planned_to_be_closed_though_it_runs() -> None:
    agent = an_agent()
    agent.controls.is_of_a_launcher = True
    async with opening_on(laptop=agent) as (fleet, opener):
        instance = await fleet.find_live("laptop")
        session = agent.add_session("/home/ann").id
        agent.tell_busy(session, "thinking")
        await eventually_async(lambda: instance.state.is_busy(session), "it runs")
        with pytest.raises(Refused, match="/home/ann was not opened from afar"):
            await opener.close(instance)
    assert not agent.controls.did


async def test_what_does_nothing_is_closed_at_once() -> None:
    agent = an_agent("/home/ann", API)
    async with opening_on(laptop=agent) as (fleet, opener):
        instance = next(each for each in await fleet.instances() if each.state.directory == API)
        done = await opener.close(instance)
        assert (done.result, done.instance) == ("done", instance.name)
        assert [each.name for each in await fleet.instances()] == ["laptop"]
    assert agent.controls.did == [f"close {API}"]


async def test_what_runs_is_shown_first_and_closed_as_it_was_shown() -> None:
    agent = an_agent("/home/ann", API)
    session = agent.add_session(API).id
    agent.statuses[session] = Status()
    async with opening_on(laptop=agent) as (fleet, opener):
        instance = next(each for each in await fleet.instances() if each.state.directory == API)
        planned = await opener.close(instance)
        assert (planned.result, agent.controls.did) == ("planned", [])
        assert f"while it runs session {session}" in planned.says
        with pytest.raises(Refused, match="is for something else"):
            await opener.close(await fleet.find_live("laptop"), planned.plan)
        other = agent.add_session(API).id
        agent.statuses[other] = Status()
        agent.tell(StatusChanged(other, Status()))
        with pytest.raises(Refused, match="has changed since"):
            await opener.close(instance, planned.plan)
        planned = await opener.close(instance)
        done = await opener.close(instance, planned.plan)
        assert done.result == "done"
        again = await opener.close(instance, planned.plan)
        assert (again.result, agent.controls.did) == ("nothing", [f"close {API}"])
        assert done.says in again.says


async def test_a_plan_whose_caller_goes_away_tells_what_it_did_all_the_same() -> None:
    agent = an_agent("/home/ann", API)
    session = agent.add_session(API).id
    agent.statuses[session] = Status()
    async with opening_on(laptop=agent) as (fleet, opener):
        instance = next(each for each in await fleet.instances() if each.state.directory == API)
        plan = (await opener.close(instance)).plan
        agent.controls.gate.clear()
        call = asyncio.create_task(opener.close(instance, plan))
        await eventually_async(lambda: len(agent.places) == 1, "it is being closed")
        call.cancel()
        await asyncio.wait({call})
        agent.controls.gate.set()
        await eventually_async(lambda: [each.name for each in fleet.all_instances()] == ["laptop"], "it is closed")
        again = await opener.close(await fleet.find_live("laptop"), plan)
        assert (again.result, agent.controls.did) == ("nothing", [f"close {API}"])
        assert "it did this: was closed" in again.says


async def test_a_plan_that_was_refused_in_the_end_says_so() -> None:
    agent = an_agent("/home/ann", API)
    agent.statuses[agent.add_session(API).id] = Status()
    async with opening_on(laptop=agent) as (fleet, opener):
        instance = next(each for each in await fleet.instances() if each.state.directory == API)
        plan = (await opener.close(instance)).plan
        agent.controls.breaks = Forbidden("“laptop”: that directory was not opened from afar")
        with pytest.raises(Forbidden):
            await opener.close(instance, plan)
        again = await opener.close(instance, plan)
        assert "it did this: nothing, as “laptop”: that directory was not opened from afar" in again.says


async def test_the_same_call_again_tells_what_was_done_though_the_instance_is_gone() -> None:
    agent = an_agent("/home/ann", API)
    agent.statuses[agent.add_session(API).id] = Status()
    async with opening_on(laptop=agent) as (fleet, _):
        face = Face(fleet, Driver(fleet, 30))
        name = next(each.name for each in await fleet.instances() if each.state.directory == API)
        plan = structured(await control(face, [name], "close"))["plan"]
        assert "was closed" in text_of(await control(face, [name], "close", plan=plan))
        again = await control(face, [name], "close", plan=plan)
        assert "was used already, and nothing was done again; it did this: was closed" in text_of(again)
        with pytest.raises(Refused, match="plan"):
            await control(face, [name], "close", plan="p00000000")
    assert agent.controls.did == [f"close {API}"]
