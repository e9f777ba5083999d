"""What is done with sessions beside their turns: once, and what destroys only as it was shown."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import control as control_module
from opencode_fleet.agent import Capability
from opencode_fleet.control import Controller, Wish
from opencode_fleet.drive import Driver
from opencode_fleet.errors import BadAnswer, Refused, Rejected, Unreachable
from opencode_fleet.events import StatusChanged
from opencode_fleet.model import Message, Part, Status
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.errors import InstanceError
    from opencode_fleet.fleet import Fleet
    from opencode_fleet.instance import Instance


@asynccontextmanager
async def controlled(agent: FakeAgent) -> AsyncIterator[tuple[Instance, Controller]]:
    """Run a fleet with one agent, and give its instance and what controls it."""
    async with fake_fleet(laptop=agent) as (fleet, _):
        yield await fleet.find_live("laptop"), controller(fleet)


def controller(fleet: Fleet) -> Controller:
    return Controller(fleet, Driver(fleet, 30))


def an_agent(*texts: str) -> tuple[FakeAgent, str]:
    """Return an agent with one session, in which a person said `texts` and was answered each time."""
    agent = FakeAgent(can=frozenset({Capability.ARCHIVES}))
    session = agent.add_session("/", "about tea")
    for number, text in enumerate(texts):
        said = (Part(id=f"prt_{number}", kind="text", text=text),)
        agent.conversations[session.id] += [
            Message(id=f"msg_u{number}", session_id=session.id, role="user", parts=said),
            Message(
                id=f"msg_a{number}", session_id=session.id, role="assistant", answers=f"msg_u{number}", completed=1.0
            ),
        ]
    return agent, session.id


def run(agent: FakeAgent, *sessions: str) -> None:
    """Let the sessions run."""
    for session in sessions:
        agent.statuses[session] = Status()
        agent.tell(StatusChanged(session, Status()))


def run_out(agent: FakeAgent, session: str) -> None:
    """Let a session's turn end."""
    del agent.statuses[session]
    agent.tell(StatusChanged(session, None))


@pytest.mark.parametrize(
    ("wish", "did"),
    [
        (Wish("compact"), "compact {}"),
        (Wish("fork"), "fork {}"),
        (Wish("rename", value=" about coffee "), "rename {} about coffee"),
    ],
)
async def test_what_destroys_nothing_is_done_at_once(wish: Wish, did: str) -> None:
    agent, session = an_agent("tea?")
    async with controlled(agent) as (laptop, controls):
        done = await controls.act(laptop, wish)
    assert (done.result, done.instance) == ("done", "laptop")
    assert agent.controls.did == [did.format(session)]
    assert (done.session == session) is (wish.action != "fork")


@pytest.mark.parametrize(
    ("action", "value", "switched"),
    [("agent", " Plan ", ("plan", "")), ("model", "fake/small", ("", "fake/small"))],
)
async def test_a_session_goes_on_with_what_is_offered_without_a_message(
    action: control_module.Action, value: str, switched: tuple[str, str]
) -> None:
    agent, session = an_agent("tea?")
    async with controlled(agent) as (laptop, controls):
        done = await controls.act(laptop, Wish(action, value=value))
        assert (done.result, done.session) == ("done", session)
        assert agent.switched == [(session, *switched)]
        assert agent.posted == []
        for wrong in ("", "plam"):
            with pytest.raises(Refused):
                await controls.act(laptop, Wish(action, value=wrong))
        run(agent, session)
        await eventually_async(lambda: laptop.state.is_busy(session), "the turn")
        with pytest.raises(Refused, match="runs; wait for its end"):
            await controls.act(laptop, Wish(action, value=value))
    assert len(agent.switched) == 1


@pytest.mark.parametrize("action", ["undo", "archive"])
async def test_what_destroys_is_shown_and_done_once_with_its_plan(action: control_module.Action) -> None:
    agent, session = an_agent("tea?", "coffee?")
    async with controlled(agent) as (laptop, controls):
        planned = await controls.act(laptop, Wish(action))
        assert (planned.result, agent.controls.did) == ("planned", [])
        wish = Wish(action, plan=planned.plan)
        done = await controls.act(laptop, wish)
        assert done.result == "done"
        again = await controls.act(laptop, wish)
        assert again.result == "nothing"
        assert "was used already" in again.says
        assert done.says in again.says
    assert agent.controls.did == [f"{action} {session}{' msg_u1' if action == 'undo' else ''}"]


async def test_undo_goes_back_a_message_at_a_time_and_redo_brings_all_back() -> None:
    agent, session = an_agent("tea?", "coffee?")
    async with controlled(agent) as (laptop, controls):
        for text in ("coffee?", "tea?"):
            planned = await controls.act(laptop, Wish("undo"))
            assert text in planned.says
            assert "the one message after it" in planned.says
            assert "edits that were made since in the work tree, also at the desk" in planned.says
            await controls.act(laptop, Wish("undo", plan=planned.plan))
        with pytest.raises(Refused, match="no message"):
            await controls.act(laptop, Wish("undo"))
        planned = await controls.act(laptop, Wish("redo"))
        assert planned.result == "planned"
        assert (await controls.act(laptop, Wish("redo", plan=planned.plan))).result == "done"
        assert (await controls.act(laptop, Wish("redo"))).result == "nothing"
    undone = [f"undo {session} msg_u1", f"undo {session} msg_u0"]
    assert agent.controls.did == [*undone, f"redo {session}"]


async def test_redo_is_shown_first_as_it_overwrites_what_was_edited_since() -> None:
    agent, session = an_agent("tea?", "coffee?")
    async with controlled(agent) as (laptop, controls):
        agent.made[session] = replace(agent.made[session], undone_from="msg_u1")
        planned = await controls.act(laptop, Wish("redo"))
        assert (planned.result, agent.controls.did) == ("planned", [])
        assert "edits that were made since in the work tree, also at the desk, would be overwritten" in planned.says
        agent.made[session] = replace(agent.made[session], undone_from="msg_u0")
        with pytest.raises(Refused, match="has changed since it was shown; nothing was done"):
            await controls.act(laptop, Wish("redo", plan=planned.plan))
    assert agent.controls.did == []


async def test_a_message_that_comes_after_the_plan_voids_it() -> None:
    agent, session = an_agent("tea?")
    async with controlled(agent) as (laptop, controls):
        planned = await controls.act(laptop, Wish("undo"))
        agent.conversations[session].append(Message(id="msg_u9", session_id=session, role="user"))
        with pytest.raises(Refused, match="has changed since it was shown; nothing was done"):
            await controls.act(laptop, Wish("undo", plan=planned.plan))
    assert agent.controls.did == []


@pytest.mark.parametrize("action", ["compact", "fork", "undo", "redo", "archive"])
async def test_a_session_that_runs_is_left_alone(action: control_module.Action) -> None:
    agent, session = an_agent("tea?")
    run(agent, session)
    async with controlled(agent) as (laptop, controls):
        with pytest.raises(Refused, match=r"runs; wait for its end.*Nothing was done"):
            await controls.act(laptop, Wish(action))
        assert (await controls.act(laptop, Wish("rename", value="it runs"))).result == "done"
    assert agent.controls.did == [f"rename {session} it runs"]


async def test_a_subagent_s_session_is_not_controlled() -> None:
    agent, root = an_agent("tea?")
    child = agent.add_session("/", parent_id=root)
    async with controlled(agent) as (laptop, controls):
        with pytest.raises(Refused, match=rf"is a subagent's; say session {root}"):
            await controls.act(laptop, Wish("fork", child.id))


@pytest.mark.parametrize("title", ["", "  ", "two\nlines", "x" * 201, "back\u202ewards"])
async def test_a_title_is_one_plain_line(title: str) -> None:
    agent, _ = an_agent()
    async with controlled(agent) as (laptop, controls):
        with pytest.raises(Refused, match="is the new title: one line"):
            await controls.act(laptop, Wish("rename", value=title))
    assert agent.controls.did == []


async def test_what_the_agent_cannot_do_is_refused_with_its_reason() -> None:
    agent, _ = an_agent("tea?")
    agent.capabilities = frozenset()
    async with controlled(agent) as (laptop, controls):
        with pytest.raises(Refused, match=r"cannot put sessions away from afar\. Nothing was done"):
            await controls.act(laptop, Wish("archive"))


@pytest.mark.parametrize(
    ("error", "result", "says"),
    [
        (Unreachable("the line broke"), "unknown", "whether fork was done is not known"),
        (Unreachable("nothing listens there", refused=True), "refused", "nothing was done"),
        (BadAnswer("it answered more than 8 MiB"), "unknown", "whether fork was done is not known"),
        (Rejected("it said no", status=400), "refused", "it said no"),
        (Rejected("it broke off", status=500), "unknown", "it broke off: whether fork was done is not known"),
        (BadAnswer("no JSON"), "unknown", "no JSON: whether fork was done is not known"),
    ],
)
async def test_an_answer_that_is_lost_is_called_unknown(error: InstanceError, result: str, says: str) -> None:
    agent, _ = an_agent("tea?")
    agent.controls.breaks = error
    async with controlled(agent) as (laptop, controls):
        done = await controls.act(laptop, Wish("fork"))
    assert done.result == result
    assert says in done.says


async def test_a_call_that_was_cut_off_is_heard_by_the_same_call_again_and_not_done_twice() -> None:
    agent, session = an_agent("tea?")
    agent.controls.gate.clear()
    async with controlled(agent) as (laptop, controls):
        calling = asyncio.create_task(controls.act(laptop, Wish("fork")))
        await eventually_async(lambda: len(agent.made) == 2)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        agent.controls.gate.set()
        done = await controls.act(laptop, Wish("fork", session=None))
    assert done.result == "done"
    assert agent.controls.did == [f"fork {session}"]


async def test_what_takes_long_goes_on_and_the_same_call_hears_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "WORKS_FOR", 0.01)
    agent, session = an_agent("tea?")
    agent.controls.gate.clear()
    async with controlled(agent) as (laptop, controls):
        assert (await controls.act(laptop, Wish("compact"))).result == "going-on"
        monkeypatch.setattr(control_module, "WORKS_FOR", 30.0)
        agent.controls.gate.set()
        assert (await controls.act(laptop, Wish("compact"))).result == "done"
    assert agent.controls.did == [f"compact {session}"]


async def test_the_end_of_an_earlier_call_is_called_that_and_told_once() -> None:
    agent, session = an_agent("tea?")
    agent.controls.gate.clear()
    async with controlled(agent) as (laptop, controls):
        # The second names the session, which the first did not.
        calls = [asyncio.create_task(controls.act(laptop, Wish("compact", named))) for named in (None, session)]
        await eventually_async(lambda: laptop.posting, "it has begun")
        agent.controls.gate.set()
        first, second = await asyncio.gather(*calls)
        notes = sorted("the end of an earlier call" in each.says for each in (first, second))
        assert notes == [False, True]
        anew = await controls.act(laptop, Wish("compact"))
    assert "the end of an earlier call" not in anew.says
    assert agent.controls.did == [f"compact {session}"] * 2


async def test_nothing_is_sent_to_a_session_that_is_being_changed() -> None:
    agent, session = an_agent("tea?")
    agent.controls.gate.clear()
    async with fake_fleet(laptop=agent) as (fleet, _):
        laptop, driver = await fleet.find_live("laptop"), Driver(fleet, 30)
        changing = asyncio.create_task(Controller(fleet, driver).act(laptop, Wish("compact")))
        await eventually_async(lambda: laptop.posting, "it has begun")
        with pytest.raises(Refused, match="is being changed"):
            await driver.send(laptop, "and milk?", session, Notes().take)
        agent.controls.gate.set()
        assert (await changing).result == "done"
        assert not laptop.posting
    assert not agent.posted


async def test_a_new_title_shows_at_once() -> None:
    agent, session = an_agent("tea?")
    async with controlled(agent) as (laptop, controls):
        await controls.act(laptop, Wish("rename", value="about coffee"))
        assert laptop.state.sessions[session].title == "about coffee"


# -- stopping --------------------------------------------------------------------------------------------------------


async def test_the_one_session_that_runs_is_stopped_at_once() -> None:
    agent, session = an_agent("tea?")
    run(agent, session)
    async with controlled(agent) as (laptop, controls):
        (done,) = await controls.stop([laptop], Wish("stop"))
        assert (done.result, done.session) == ("done", session)
        (nothing,) = await controls.stop([laptop], Wish("stop"))
        assert nothing.result == "nothing"
    assert agent.statuses == {}


async def test_several_are_stopped_only_with_a_plan_and_each_is_told() -> None:
    agent, session = an_agent("tea?")
    desk, other = an_agent("coffee?")
    desk.made[other] = replace(desk.made[other], title="about coffee")
    run(agent, session)
    run(desk, other)
    async with fake_fleet(laptop=agent, desk=desk) as (fleet, _):
        both = [await fleet.find_live("laptop"), await fleet.find_live("desk")]
        controls = controller(fleet)
        planned = await controls.stop(both, Wish("stop"))
        assert [each.result for each in planned] == ["planned", "planned"]
        assert "about coffee" in planned[1].says
        assert agent.statuses
        done = await controls.stop(both, Wish("stop", plan=planned[0].plan))
        assert [(each.instance, each.session, each.result) for each in done] == [
            ("laptop", session, "done"),
            ("desk", other, "done"),
        ]
        assert not agent.statuses
        assert not desk.statuses
        run(agent, session)
        (again,) = await controls.stop(both, Wish("stop", plan=planned[0].plan))
        assert f"session {session} was stopped" in again.says
        assert agent.statuses


async def test_a_session_that_began_since_voids_the_plan_to_stop_all() -> None:
    agent, session = an_agent("tea?")
    second, third = agent.add_session("/"), agent.add_session("/")
    run(agent, session, second.id)
    async with controlled(agent) as (laptop, controls):
        planned = await controls.stop([laptop], Wish("stop"))
        run(agent, third.id)
        with pytest.raises(Refused, match="has changed since it was shown; nothing was done"):
            await controls.stop([laptop], Wish("stop", plan=planned[0].plan))
        assert len(agent.statuses) == 3
        (done,) = await controls.stop([laptop], Wish("stop", second.id))
        assert (done.result, done.session) == ("done", second.id)
        assert set(agent.statuses) == {session, third.id}


async def test_what_ended_since_does_not_void_the_plan_to_stop_all() -> None:
    agent, session = an_agent("tea?")
    desk, other = an_agent("coffee?")
    run(agent, session)
    run(desk, other)
    async with fake_fleet(laptop=agent, desk=desk) as (fleet, _):
        laptop, another = await fleet.find_live("laptop"), await fleet.find_live("desk")
        controls = controller(fleet)
        planned = await controls.stop([laptop, another], Wish("stop"))
        run_out(desk, other)
        # Its machine went away too.
        done = await controls.stop([laptop], Wish("stop", plan=planned[0].plan))
        assert [(each.session, each.result) for each in done] == [(session, "done")]
        run(agent, session)
        run(desk, other)
        planned = await controls.stop([laptop, another], Wish("stop"))
        run_out(agent, session)
        run_out(desk, other)
        (nothing,) = await controls.stop([laptop, another], Wish("stop", plan=planned[0].plan))
        assert nothing.result == "nothing"


async def test_a_session_that_is_named_by_words_is_told_by_its_id_and_no_new_one_is_stopped() -> None:
    agent, session = an_agent("tea?")
    run(agent, session)
    async with controlled(agent) as (laptop, controls):
        with pytest.raises(Refused, match=r"'new' is no session that could run.*Nothing was stopped"):
            await controls.stop([laptop], Wish("stop", "new"))
        assert agent.statuses
        (done,) = await controls.stop([laptop], Wish("stop", "about tea"))
        assert (done.result, done.session) == ("done", session)
        (nothing,) = await controls.stop([laptop], Wish("stop", "about tea"))
        assert (nothing.result, nothing.session) == ("nothing", "")


async def test_one_that_cannot_be_asked_does_not_keep_the_others_running() -> None:
    agent, session = an_agent("tea?")
    desk, _ = an_agent("coffee?")
    run(agent, session)
    async with fake_fleet(laptop=agent, desk=desk) as (fleet, _):
        both = [await fleet.find_live("desk"), await fleet.find_live("laptop")]
        desk.trouble = Unreachable("the line broke")
        done = await controller(fleet).stop(both, Wish("stop"))
    assert [(each.instance, each.result) for each in done] == [("laptop", "done"), ("desk", "refused")]
