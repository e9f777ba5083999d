"""The fleet over an agent kind of the tests' own: nothing above the seam knows of OpenCode, or of MCP."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from opencode_fleet import turn as turn_module
from opencode_fleet.agent import Agent, Capability
from opencode_fleet.drive import Driver
from opencode_fleet.errors import InstanceError, Refused
from opencode_fleet.events import AskOpened, StatusChanged
from opencode_fleet.model import Status, Workplace
from opencode_mcp.face import Face
from opencode_mcp.tools.instances import instances
from opencode_mcp.tools.read import read
from opencode_mcp.tools.reply import reply
from opencode_mcp.tools.send import send
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_fleet.events import Event
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance
    from opencode_fleet.model import Ask

SEVERAL = frozenset({Capability.DIRECTORIES})


def seen(_ask: Ask) -> bool:
    """Say that the person had all of it."""
    return True


async def states(fleet: Fleet) -> dict[str, str]:
    return {instance.name: instance.state_name() for instance in await fleet.instances()}


async def show(fleet: Fleet, wanted: dict[str, str]) -> bool:
    assert await states(fleet) == wanted
    return True


async def becomes(fleet: Fleet, **wanted: str) -> None:
    named = {name.replace("_", "-"): state for name, state in wanted.items()}
    await eventually_async(partial(show, fleet, named), str(named), within=30)


def test_the_scripted_agent_is_an_agent() -> None:
    agent: Agent = FakeAgent()
    assert agent.version


async def test_a_message_is_answered_and_told_as_it_is_written() -> None:
    async with fake_fleet(laptop=FakeAgent()) as (fleet, _):
        instance, notes = await fleet.find_live("laptop"), Notes()
        outcome = await Driver(fleet, 30).send(instance, "hello", None, notes.take)
        assert (outcome.result, outcome.text, outcome.note) == ("done", "echo: hello", "")
        assert "echo: hello".startswith("".join(notes))
        assert instance.state_name() == "idle"


async def test_a_message_names_the_agent_model_and_variant_that_its_session_is_in() -> None:
    agent = FakeAgent("/home/ann/api")
    session = agent.add_session("/home/ann/api")
    agent.made[session.id] = replace(session, agent="plan", model="a/b", variant="high")
    async with fake_fleet(laptop=agent) as (fleet, _):
        await Driver(fleet, 30).send(await fleet.find_live("laptop"), "hello", session.id, Notes().take)
    (prompt,) = agent.posted
    assert (prompt.agent, prompt.model, prompt.variant) == ("plan", "a/b", "high")


async def test_the_tools_need_no_mcp() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver = Driver(fleet, 30)
        face, context = Face(fleet, driver), Notes().context()
        sent = (await send(face, context, ["laptop"], "hello")).structured_content or {}
        assert (sent["result"], sent["text"]) == ("done", "echo: hello")
        shown = (await read(face, context, "laptop")).structured_content or {}
        assert [row["text"] for row in shown["messages"]] == ["hello", "echo: hello"]
        asked = (await send(face, context, ["laptop"], "ask me")).structured_content or {}
        assert asked["result"] == "needs-permission"
        assert (await states(fleet)) == {"laptop": "needs-permission"}
        (waits,) = ((await reply(face, context, "laptop")).structured_content or {})["asks"]
        settled = (await reply(face, context, "laptop", "once", waits["id"])).structured_content or {}
        assert (settled["result"], settled["text"]) == ("done", "once, echo: ask me")
        listed = (await instances(face)).structured_content or {}
        assert listed["instances"][0]["version"] == "7.0"


async def test_a_question_is_answered_with_the_option_s_value() -> None:
    agent = FakeAgent()
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, instance = Driver(fleet, 30), await fleet.find_live("laptop")
        asked = await driver.send(instance, "question", None, Notes().take)
        assert asked.result == "needs-answer"
        outcome = await driver.reply(instance, asked.asks[0].id, "RED", Notes().take, seen)
        assert (outcome.result, agent.said) == ("done", [[["red!"]]])


@pytest.mark.parametrize("reaches", [True, False])
async def test_the_reason_of_a_rejection_reaches_the_model_where_need_be_as_a_message(reaches: bool) -> None:
    agent = FakeAgent(can=frozenset({Capability.REASONS}) if reaches else frozenset())
    async with fake_fleet(laptop=agent) as (fleet, _):
        driver, instance = Driver(fleet, 30), await fleet.find_live("laptop")
        asked = await driver.send(instance, "ask me", None, Notes().take)
        outcome = await driver.reply(instance, asked.asks[0].id, "reject: use the other one", Notes().take, seen)
        assert outcome.result == "done"
        assert agent.decisions == [("reject", "use the other one")]
        assert outcome.text == ("reject, echo: ask me" if reaches else "echo: use the other one")
        assert [prompt.text for prompt in agent.posted] == ["ask me", *([] if reaches else ["use the other one"])]


# -- several directories ---------------------------------------------------------------------------------------------


async def test_each_directory_is_an_instance_and_what_is_sent_to_one_stays_in_it() -> None:
    agent = FakeAgent("/home/ann/api", "/home/ann/web", can=SEVERAL)
    async with fake_fleet(laptop_api=agent) as (fleet, _):
        await becomes(fleet, laptop_api="idle", elsewhere_web="idle")
        api, web = await fleet.find_live("laptop-api"), await fleet.find_live("elsewhere-web")
        agent.gate.clear()
        outcome = await Driver(fleet, 0.5).send(web, "hello", None, Notes().take)
        assert outcome.result == "running"
        assert await states(fleet) == {"laptop-api": "idle", "elsewhere-web": "busy"}
        with pytest.raises(Refused, match="belongs to another directory"):
            await Driver(fleet, 30).sessions.named(api, outcome.session_id)
        agent.gate.set()
        await becomes(fleet, laptop_api="idle", elsewhere_web="idle")
        assert [session.directory for session in agent.made.values()] == ["/home/ann/web"]
        # It is one agent: whoever of its instances is asked, nobody else runs it.
        assert fleet.runner_of(outcome.session_id, besides=api) is None


async def test_a_session_of_a_directory_that_is_not_known_yet_brings_its_instance_along() -> None:
    agent = FakeAgent("/home/ann/api", can=SEVERAL)
    async with fake_fleet(laptop_api=agent) as (fleet, _):
        await becomes(fleet, laptop_api="idle")
        session = agent.add_session("/home/ann/new")
        agent.tell(StatusChanged(session.id, Status()))
        await becomes(fleet, laptop_api="idle", elsewhere_new="busy")


async def test_a_directory_that_is_closed_takes_its_instance_along() -> None:
    agent = FakeAgent("/home/ann/api", "/home/ann/web", can=SEVERAL)
    async with fake_fleet(laptop_api=agent) as (fleet, _):
        await becomes(fleet, laptop_api="idle", elsewhere_web="idle")
        web = await fleet.find("elsewhere-web")
        del agent.places[1]
        agent.tell(None)
        await becomes(fleet, laptop_api="idle")
        assert web.closed_since is not None


async def test_an_ask_of_each_directory_shows_there_also_in_the_first_snapshot() -> None:
    agent = FakeAgent("/home/ann/api", "/home/ann/web", can=SEVERAL)
    agent.add_ask(agent.add_session("/home/ann/web").id)
    child = agent.add_session("/home/ann/api", parent_id=agent.add_session("/home/ann/api").id)
    async with fake_fleet(laptop_api=agent) as (fleet, _):
        await becomes(fleet, laptop_api="idle", elsewhere_web="needs-permission")
        agent.tell(AskOpened(agent.add_ask(child.id)))
        await becomes(fleet, laptop_api="needs-permission", elsewhere_web="needs-permission")
        api = await fleet.find("laptop-api")
        assert len(await Driver(fleet, 30).asks(api)) == 1
        assert api.state.busy_roots() == [child.parent_id]


# -- names -----------------------------------------------------------------------------------------------------------


async def test_names_of_further_directories_are_unique_and_stay() -> None:
    places = ["/home/ann/api", "/srv/web", "/home/ann/web", "/tmp/my web (old)", "/"]
    agent = FakeAgent(*places, Workplace(directory="/home/ann/x", name="chosen"), can=SEVERAL)
    async with fake_fleet(laptop_api=agent) as (fleet, _):
        names = {"elsewhere-web", "elsewhere-web-2", "elsewhere-my-web-old", "elsewhere-root", "chosen", "laptop-api"}
        await eventually_async(partial(has, fleet, names))
        before = {i.name: i.state.directory for i in await fleet.instances()}
        assert before["elsewhere-web"] == "/srv/web"
        agent.places = [*agent.places[:1], *reversed(agent.places[1:])]
        agent.places.append(Workplace(directory="/opt/web"))
        agent.tell(None)
        await eventually_async(partial(has, fleet, {*names, "elsewhere-web-3"}))
        after = {i.name: i.state.directory for i in await fleet.instances()}
        assert after == before | {"elsewhere-web-3": "/opt/web"}


async def has(fleet: Fleet, names: set[str]) -> bool:
    assert (await states(fleet)).keys() == names
    return True


async def test_a_name_that_is_registered_wins_over_one_that_was_made_up() -> None:
    agent, other = FakeAgent("/home/ann/api", "/home/ann/web", can=SEVERAL), FakeAgent("/home/ben")
    async with fake_fleet(laptop_api=agent, elsewhere_desk=other) as (fleet, transport):
        await becomes(fleet, laptop_api="idle", elsewhere_web="idle", elsewhere_desk="idle")
        made_up = await fleet.find("elsewhere-web")
        transport.announce("elsewhere-web", "http://127.0.0.1:9")
        await becomes(
            fleet, laptop_api="idle", elsewhere_web_2="idle", elsewhere_desk="idle", elsewhere_web="offline"
        )
        assert await fleet.find("elsewhere-web-2") is made_up


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [("laptop-x", "laptop-x"), ("laptop", "laptop"), ("desktop-x", "laptop-web"), ("laptopx", "laptop-web")],
)
async def test_no_enrolled_machine_gives_its_directories_another_machine_s_name(chosen: str, shown: str) -> None:
    agent = FakeAgent("/home/ann/api", Workplace(directory="/home/ann/web", name=chosen), can=SEVERAL)
    async with fake_fleet() as (fleet, transport):
        fleet._find_agent = always(agent)
        transport.announce("laptop-api", "http://127.0.0.1:9", directory="/home/ann/api", client="laptop")
        await eventually_async(partial(has, fleet, {"laptop-api", shown}))


def always(agent: FakeAgent) -> Any:
    async def find(_client: object) -> FakeAgent:
        return agent

    return find


# -- hearing of all --------------------------------------------------------------------------------------------------


async def test_a_subscriber_hears_of_every_instance_until_it_ends_that(caplog: pytest.LogCaptureFixture) -> None:
    agent, other = FakeAgent("/home/ann/api", "/home/ann/web", can=SEVERAL), FakeAgent()
    heard: list[tuple[str, Event | None]] = []

    def hear(instance: Instance, event: Event | None) -> None:
        heard.append((instance.name, event))

    def fail(_instance: Instance, _event: Event | None) -> None:
        raise RuntimeError("a bad listener")

    async with fake_fleet(laptop_api=agent, desk=other) as (fleet, transport):
        fleet.subscribe(fail)
        end = fleet.subscribe(hear)
        await becomes(fleet, laptop_api="idle", elsewhere_web="idle", desk="idle")
        assert {name for name, event in heard if event is None} == {"laptop-api", "elsewhere-web", "desk"}
        heard.clear()
        web = await fleet.find("elsewhere-web")
        await Driver(fleet, 30).send(web, "hello", None, Notes().take)
        await eventually_async(lambda: StatusChanged(agent.posted[0].session_id, None) in [e for _, e in heard])
        assert {name for name, _ in heard} == {"elsewhere-web"}
        heard.clear()
        transport.withdraw("desk")
        await eventually_async(lambda: ("desk", None) in heard)
        end()
        heard.clear()
        await Driver(fleet, 30).send(web, "again", None, Notes().take)
        assert heard == []
        assert "a bad listener" in caplog.text


# -- ends that are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outlives", [True, False])
async def test_when_the_line_is_closed_it_is_said_whether_the_turn_goes_on(outlives: bool) -> None:
    agent = FakeAgent(can=frozenset({Capability.OUTLIVES}) if outlives else frozenset())
    agent.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, transport):
        instance = await fleet.find_live("laptop")

        async def close(_text: str) -> None:
            raise AssertionError("nothing is written before the gate")

        def withdraw(_instance: Instance, event: Event | None) -> None:
            if isinstance(event, StatusChanged) and event.status:
                transport.withdraw("laptop", clean=True)

        fleet.subscribe(withdraw)
        outcome = await Driver(fleet, 30).send(instance, "hello", None, close)
        if outlives:
            assert outcome.result == "running"
            assert "the turn goes on" in outcome.problem
            await becomes(fleet, laptop="offline")
            assert instance.trouble == "it was closed there, 1 turn goes on"
        else:
            assert outcome.result == "failed"
            assert "closed on its machine" in outcome.problem
            await becomes(fleet)


async def test_one_that_was_closed_while_its_turns_went_on_is_driven_again_once_it_is_back() -> None:
    agent = FakeAgent(can=frozenset({Capability.OUTLIVES}))
    async with fake_fleet(laptop=agent) as (fleet, transport):
        instance, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        asked = await driver.send(instance, "ask me", None, Notes().take)
        transport.withdraw("laptop", clean=True)
        await becomes(fleet, laptop="offline")
        with pytest.raises(InstanceError, match="it was closed there, 1 turn goes on"):
            await fleet.find_live("laptop")
        transport.announce("laptop", "http://127.0.0.1:9")
        await becomes(fleet, laptop="needs-permission")
        outcome = await driver.reply(await fleet.find_live("laptop"), asked.asks[0].id, "once", Notes().take, seen)
        assert (outcome.result, outcome.text) == ("done", "once, echo: ask me")


@pytest.mark.parametrize("wakes", [True, False])
async def test_a_message_that_lies_unread_is_posted_again_where_that_wakes_it(
    wakes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOOK_INTERVAL", "WAKE_AFTER"):
        monkeypatch.setattr(turn_module, name, 0.1)
    agent = FakeAgent(can=frozenset({Capability.WAKES}) if wakes else frozenset())
    agent.takes_in, agent.queues = False, True
    async with fake_fleet(laptop=agent) as (fleet, _):
        instance = await fleet.find_live("laptop")
        outcome = await Driver(fleet, 30 if wakes else 1).send(instance, "hello", None, Notes().take)
        assert outcome.result == ("done" if wakes else "running")
        assert len(agent.posted) == (2 if wakes else 1)
        assert len({prompt.id for prompt in agent.posted}) == 1
