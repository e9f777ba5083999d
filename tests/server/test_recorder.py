"""What the journal has of a fleet: everything that a person must hear of, once, whoever was away meanwhile."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import cuts as cuts_module
from opencode_fleet import recorder as recorder_module
from opencode_fleet.agent import Capability
from opencode_fleet.errors import FleetError, Forbidden, NotFound, Unreachable, Unresponsive
from opencode_fleet.events import AnswerChanged, AskOpened, StatusChanged, TurnFailed, TurnStopped
from opencode_fleet.model import Permission, Status
from opencode_journal.entries import (
    ASK_OPENED,
    ASK_SETTLED,
    INSTANCE_BACK,
    INSTANCE_LOST,
    TURN_ENDED,
    TURN_FAILED,
    TURN_STARTED,
)
from opencode_journal.leader import Leader
from opencode_mcp.tools.inbox import inbox
from support.fleet.fake_relay import FakeRelay, fake_relay, structured
from support.fleet.notes import Notes
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.errors import InstanceError
    from opencode_fleet.model import Ask

LINE_BROKE = Unreachable("the line broke")


def seen(_ask: Ask) -> bool:
    """Say that the person had all of it."""
    return True


async def has(relay: FakeRelay, *told: tuple[str, str]) -> None:
    """Wait until the journal has just this."""

    def is_so() -> bool:
        assert relay.told() == list(told)
        return True

    await eventually_async(is_so, "the journal's entries", within=20)


async def test_a_turn_is_recorded_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    agent = FakeAgent()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        outcome = await relay.face.driver.send(instance, "hello", None, Notes().take)
        session = outcome.session_id
        await has(relay, (TURN_STARTED, session), (TURN_ENDED, session))
        ended = relay.entries(TURN_ENDED)[0]
        assert (ended.instance, ended.data["title"]) == ("laptop", "begun from afar")
        assert "unseen" not in ended.data


async def test_a_failed_turn_says_why_and_what_fails_before_it_runs_is_not_lost(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        agent.tell(StatusChanged(session, Status()))
        agent.tell(TurnFailed(session, "no such model"))
        agent.tell(StatusChanged(session, None))
        agent.tell(TurnFailed(session, "no such agent"))
        await has(relay, (TURN_STARTED, session), (TURN_FAILED, session), (TURN_FAILED, session))
        assert [entry.data["problem"] for entry in relay.entries(TURN_FAILED)] == ["no such model", "no such agent"]


async def test_a_subagent_s_turn_is_its_root_s(tmp_path: Path) -> None:
    agent = FakeAgent()
    root = agent.add_session("/").id
    child = agent.add_session("/", parent_id=root).id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        agent.tell(StatusChanged(root, Status()))
        agent.tell(StatusChanged(child, Status()))
        agent.tell(AskOpened(Permission(id="per_1", session_id=child, action="bash", patterns=("ls",))))
        agent.tell(TurnFailed(child, "a subagent's trouble"))
        agent.tell(StatusChanged(child, None))
        agent.tell(StatusChanged(root, None))
        await has(relay, (TURN_STARTED, root), (ASK_OPENED, root), (ASK_SETTLED, root), (TURN_ENDED, root))


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_an_ask_is_recorded_with_how_it_was_settled_and_whether_by_us(tmp_path: Path, elsewhere: bool) -> None:
    agent = FakeAgent()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        asked = await relay.face.driver.send(instance, "ask me", None, Notes().take)
        (ask,) = asked.asks
        if elsewhere:
            assert isinstance(ask, Permission)
            await agent.reply(ask, "once", None)
        else:
            await relay.face.driver.reply(instance, ask.id, "once", Notes().take, seen)
        session = asked.session_id
        await has(
            relay, (TURN_STARTED, session), (ASK_OPENED, session), (ASK_SETTLED, session), (TURN_ENDED, session)
        )
        opened, settled = relay.entries(ASK_OPENED, ASK_SETTLED)
        assert (opened.ask, opened.data["about"], opened.data["question"]) == (ask.id, "bash ask me", False)
        assert (settled.ask, settled.data["how"], settled.data["by_us"]) == (ask.id, "once", not elsewhere)


@pytest.mark.parametrize(
    ("error", "by_us"),
    [(Forbidden("not let through"), False), (NotFound("gone"), False), (Unresponsive("no answer"), True)],
)
async def test_a_decision_that_was_not_taken_is_not_called_ours(
    tmp_path: Path, error: InstanceError, by_us: bool
) -> None:
    agent = FakeAgent()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        asked = await relay.face.driver.send(instance, "ask me", None, Notes().take)
        (ask,) = asked.asks
        really = agent.reply

        async def failing(ask: Permission, decision: str, reason: str | None) -> None:
            del ask, decision, reason
            raise error

        agent.reply = failing  # type: ignore[method-assign]
        with pytest.raises(FleetError):
            await relay.face.driver.reply(instance, ask.id, "once", Notes().take, seen)
        assert isinstance(ask, Permission)
        await really(ask, "once", None)
        await eventually_async(lambda: relay.entries(ASK_SETTLED), "the entry")
        assert relay.entries(ASK_SETTLED)[0].data["by_us"] is by_us


async def test_what_ended_while_the_line_was_away_is_recorded_once_it_is_back(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    ask = agent.add_ask(session)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        begun = [(TURN_STARTED, session), (ASK_OPENED, session)]
        await has(relay, *begun)
        agent.fail(LINE_BROKE)
        await eventually_async(lambda: not instance.connected.is_set())
        agent.open.clear()
        agent.statuses.clear()
        agent.trouble = None
        await has(relay, *begun, (ASK_SETTLED, session), (TURN_ENDED, session))
        settled, ended = relay.entries(ASK_SETTLED, TURN_ENDED)
        assert (settled.ask, settled.data["how"]) == (ask.id, "with its turn")
        assert ended.data["unseen"] is True


async def test_a_line_that_breaks_and_comes_back_doubles_nothing(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    agent.add_ask(session)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        begun = [(TURN_STARTED, session), (ASK_OPENED, session)]
        await has(relay, *begun)
        for _ in range(3):
            agent.fail(LINE_BROKE)
            await eventually_async(lambda: not instance.connected.is_set())
            agent.trouble = None
            await eventually_async(instance.connected.is_set)
            agent.tell(None)
        agent.tell(StatusChanged(session, None))
        await has(relay, *begun, (ASK_SETTLED, session), (TURN_ENDED, session))


async def test_a_server_that_is_started_anew_doubles_nothing_and_sees_what_ended_meanwhile(tmp_path: Path) -> None:
    agent = FakeAgent()
    gone, stays = agent.add_session("/").id, agent.add_session("/").id
    agent.statuses[gone] = Status()
    agent.add_ask(stays)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await eventually_async(lambda: len(relay.told()) == 3)
        before = relay.told()
    del agent.statuses[gone]
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await has(relay, *before, (TURN_ENDED, gone))


async def test_of_two_copies_one_writes_and_the_other_takes_over(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    leading = AsyncExitStack()
    first = await leading.enter_async_context(fake_relay(tmp_path, laptop=agent))
    async with leading, fake_relay(tmp_path, laptop=agent) as second:
        assert (first.leader.is_leader, second.leader.is_leader) == (True, False)
        for relay in (first, second):
            await relay.fleet.find_live("laptop")
        agent.tell(StatusChanged(session, Status()))
        for relay in (first, second):
            await has(relay, (TURN_STARTED, session))
        await leading.aclose()
        agent.tell(StatusChanged(session, None))
        await has(second, (TURN_STARTED, session), (TURN_ENDED, session))
        assert second.leader.is_leader


async def test_why_a_turn_failed_is_known_to_the_copy_that_takes_over(tmp_path: Path) -> None:
    agent = FakeAgent()
    failed, well = agent.add_session("/").id, agent.add_session("/").id
    agent.statuses = {failed: Status(), well: Status()}
    begun = [(TURN_STARTED, failed), (TURN_STARTED, well)]
    async with fake_relay(tmp_path, laptop=agent) as first:
        await has(first, *begun)
    holder = Leader(tmp_path)
    holder.look()
    async with fake_relay(tmp_path, laptop=agent) as second:
        await second.fleet.find_live("laptop")
        for session in (failed, well):
            agent.tell(TurnFailed(session, "no such model"))
            agent.tell(StatusChanged(session, None))
        # It was tried again, and the old reason is not that of what comes now.
        agent.tell(StatusChanged(well, Status()))
        agent.tell(StatusChanged(well, None))
        agent.statuses.clear()
        instance = await second.fleet.find_live("laptop")
        await eventually_async(lambda: instance.version and not instance.state.statuses)
        assert second.told() == begun
        holder._step_down()
        await eventually_async(lambda: second.leader.is_leader, within=20)
        await eventually_async(lambda: len(second.entries(TURN_FAILED, TURN_ENDED)) == 2, within=20)
        assert second.entries(TURN_FAILED)[0].data["problem"] == "no such model"
        assert second.told(TURN_FAILED, TURN_ENDED) == [(TURN_FAILED, failed), (TURN_ENDED, well)]


async def test_a_machine_that_is_away_is_recorded_after_a_while_and_when_it_is_back(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    agent.statuses[session] = Status()
    async with fake_relay(tmp_path, lost_after=0.0, laptop=agent) as relay:
        await has(relay, (TURN_STARTED, session))
        agent.fail(LINE_BROKE)
        await has(relay, (TURN_STARTED, session), (INSTANCE_LOST, ""))
        lost = relay.entries(INSTANCE_LOST)[0].data
        assert (lost["turns"], lost["asks"], lost["why"]) == (1, 0, "the line broke")
        agent.trouble = None
        await has(relay, (TURN_STARTED, session), (INSTANCE_LOST, ""), (INSTANCE_BACK, ""))


async def test_a_machine_that_never_came_back_after_a_restart_is_missed(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    agent.statuses[session] = Status()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await has(relay, (TURN_STARTED, session))
    async with fake_relay(tmp_path, lost_after=0.0) as relay:
        await has(relay, (TURN_STARTED, session), (INSTANCE_LOST, ""))
        assert relay.entries(INSTANCE_LOST)[0].instance == "laptop"


@pytest.mark.parametrize("outlives", [True, False])
async def test_an_agent_that_is_closed_ends_its_turns_unless_it_outlives_that(tmp_path: Path, outlives: bool) -> None:
    agent = FakeAgent(can=frozenset({Capability.OUTLIVES}) if outlives else frozenset())
    session = agent.add_session("/").id
    agent.add_ask(session)
    async with fake_relay(tmp_path, laptop=agent) as relay:
        begun = [(TURN_STARTED, session), (ASK_OPENED, session)]
        await has(relay, *begun)
        relay.transport.withdraw("laptop", clean=True)
        await eventually_async(lambda: not any(i.connected.is_set() for i in relay.fleet.all_instances()))
        ended = [] if outlives else [(ASK_SETTLED, session), (TURN_FAILED, session)]
        await has(relay, *begun, *ended)


async def test_a_flood_is_bounded_and_what_is_open_afterwards_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "CHANGES_AT_ONCE", 10)
    monkeypatch.setattr(recorder_module, "CHANGES_PER_SECOND", 0.001)
    agent, calm = FakeAgent(), FakeAgent()
    session, other = agent.add_session("/").id, calm.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent, desktop=calm) as relay:
        for name in ("laptop", "desktop"):
            await relay.fleet.find_live(name)
        for _ in range(100):
            agent.tell(StatusChanged(session, Status()))
            agent.tell(StatusChanged(session, None))
        agent.tell(AskOpened(Permission(id="per_1", session_id=session, action="bash", patterns=("ls",))))
        calm.tell(StatusChanged(other, Status()))
        await eventually_async(lambda: (TURN_STARTED, other) in relay.told(), within=20)
        instance = await relay.fleet.find_live("laptop")
        await eventually_async(instance.state.pending_asks)
        assert len([entry for entry in relay.entries() if entry.instance == "laptop"]) == 10
        # What waits is shown all the same.
        assert [waiting.id for waiting in await relay.face.inbox.waiting()] == ["per_1"]


async def test_what_a_hostile_agent_calls_things_is_recorded_short_and_clean(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/", "half a character \ud800, \x1b[2J and " + "x" * 100_000).id
    ask = Permission(id="per_1", session_id=session, action="\ud800" * 300, patterns=("\x00" * 100_000,))
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        agent.tell(AskOpened(ask))
        agent.tell(TurnFailed(session, "\ud800" * 100_000))
        agent.tell(StatusChanged(session, None))
        await eventually_async(lambda: relay.entries(TURN_FAILED), within=20)
        for entry in relay.entries():
            told = "".join(map(str, entry.data.values()))
            assert told.isprintable()
            assert len(told) < 1_000


async def test_a_copy_whose_journal_is_in_memory_records_for_itself_and_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    agent = FakeAgent()
    session = agent.add_session("/").id
    agent.add_ask(session)
    async with fake_relay(tmp_path, laptop=agent) as one, fake_relay(tmp_path, laptop=agent) as other:
        for relay in (one, other):
            await has(relay, (TURN_STARTED, session), (ASK_OPENED, session))
            result = structured(await inbox(relay.face))
            assert [row["id"] for row in result["asks"]] == list(agent.open)
            assert "others may write into it" in result["problem"]


def answering(agent: FakeAgent, session: str) -> None:
    """Have a turn be in the middle of an answer."""
    agent.tell(StatusChanged(session, Status()))
    agent.tell(AnswerChanged(session, "msg_2", "msg_1", ""))


STOP = TurnFailed("", "it was stopped", is_stopped=True)


@pytest.mark.parametrize("word", [STOP, TurnStopped("")])
@pytest.mark.parametrize("comes", ["before", "after"])
async def test_a_turn_that_was_stopped_is_recorded_so_whenever_that_is_told(
    tmp_path: Path, word: TurnFailed | TurnStopped, comes: str
) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        answering(agent, session)
        told = [replace(word, session_id=session), StatusChanged(session, None)]
        for event in told if comes == "before" else reversed(told):
            agent.tell(event)
        await has(relay, (TURN_STARTED, session), (TURN_ENDED, session))
        (row,) = structured(await inbox(relay.face))["ended"]
        assert row["result"] == "stopped"
        assert "unseen" not in relay.entries(TURN_ENDED)[0].data


async def test_one_that_is_cut_short_without_a_word_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts_module, "HELD_FOR", 0.05)
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        answering(agent, session)
        agent.tell(StatusChanged(session, None))
        await has(relay, (TURN_STARTED, session), (TURN_ENDED, session))
        assert relay.entries(TURN_ENDED)[0].data.keys() == {"title"}
        # Too late, and no other end.
        agent.tell(replace(STOP, session_id=session))
        answering(agent, session)
        await has(relay, (TURN_STARTED, session), (TURN_ENDED, session), (TURN_STARTED, session))


async def test_one_that_is_cut_short_has_its_end_before_the_next_one_begins(tmp_path: Path) -> None:
    agent = FakeAgent()
    session = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await relay.fleet.find_live("laptop")
        answering(agent, session)
        agent.tell(StatusChanged(session, None))
        answering(agent, session)
        await has(relay, (TURN_STARTED, session), (TURN_ENDED, session), (TURN_STARTED, session))
