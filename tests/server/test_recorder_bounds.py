"""What one machine can make the journal hold and write is bounded, and no other machine pays for it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import open_work, recorder
from opencode_fleet.agent import Capability
from opencode_fleet.differences import MAX_ID, MAX_OPEN, title_of
from opencode_fleet.errors import Unreachable
from opencode_fleet.events import StatusChanged
from opencode_fleet.model import Permission, Session, Status
from opencode_fleet.open_work import Open, OpenWork
from opencode_fleet.own_turns import OwnTurns
from opencode_journal.entries import ASK_OPENED, INSTANCE_LOST, TURN_ENDED, TURN_STARTED
from opencode_journal.journal import MAX_STATE_BYTES, Journal
from support.fleet.fake_relay import FakeRelay, fake_relay
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_fleet.instance import Instance

SEVERAL = frozenset({Capability.DIRECTORIES, Capability.OUTLIVES})


@pytest.fixture
def ten_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may change ten things, and then nothing for long."""
    monkeypatch.setattr(recorder, "CHANGES_AT_ONCE", 10)
    monkeypatch.setattr(recorder, "CHANGES_PER_SECOND", 0.0001)


def of(relay: FakeRelay, name: str, *kinds: str) -> list[str]:
    """Return the kinds of the entries of an instance."""
    return [entry.kind for entry in relay.entries(*kinds) if entry.instance == name]


async def reconnect(relay: FakeRelay, agent: FakeAgent) -> None:
    """Break the line, so that everything is looked at anew."""
    agent.fail(Unreachable("the line broke"))
    instances = [i for i in relay.fleet.all_instances() if i.connected.is_set()]
    await eventually_async(lambda: any(not i.connected.is_set() for i in instances))
    agent.trouble = None
    await eventually_async(lambda: all(i.connected.is_set() for i in relay.fleet.all_instances()))


@pytest.mark.usefixtures("ten_changes")
async def test_each_entry_counts_however_many_a_look_finds(tmp_path: Path) -> None:
    agent, calm = FakeAgent(), FakeAgent()
    for _ in range(8):
        agent.statuses[agent.add_session("/").id] = Status()
    other = calm.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent, desktop=calm) as relay:
        await eventually_async(lambda: of(relay, "laptop") == [TURN_STARTED] * 8)
        agent.statuses.clear()
        await reconnect(relay, agent)
        calm.tell(StatusChanged(other, Status()))
        await eventually_async(lambda: of(relay, "desktop") == [TURN_STARTED])
        assert of(relay, "laptop") == [TURN_STARTED] * 8, "eight more are too many"


def _has_ends(relay: FakeRelay, count: int) -> bool:
    return len(relay.entries(TURN_ENDED)) == count


@pytest.mark.usefixtures("ten_changes")
async def test_the_ends_of_what_was_begun_from_here_are_told_whatever_else_the_machine_did(tmp_path: Path) -> None:
    agent = FakeAgent()
    for _ in range(10):
        agent.statuses[agent.add_session("/").id] = Status()
    ours = agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await eventually_async(lambda: of(relay, "laptop") == [TURN_STARTED] * 10)
        for number in range(1, 4):
            OwnTurns(relay.journal).note("laptop", ours, f"msg_{number}")
            agent.tell(StatusChanged(ours, Status()))
            agent.tell(StatusChanged(ours, None))
            await eventually_async(partial(_has_ends, relay, number))
        agent.tell(StatusChanged(ours, Status()))
        await reconnect(relay, agent)
        assert of(relay, "laptop") == [TURN_STARTED] * 10 + [TURN_STARTED, TURN_ENDED] * 3, (
            "theirs, which is one too many"
        )


def two_places(*, alive: str) -> tuple[FakeAgent, str]:
    """Return an agent with two directories, and a session that runs in one of them."""
    agent = FakeAgent("/api", "/web", can=SEVERAL)
    session = agent.add_session(alive).id
    agent.statuses[session] = Status()
    return agent, session


@pytest.mark.parametrize("is_told", [True, False])
async def test_what_was_open_in_a_directory_that_is_gone_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    if not is_told:
        monkeypatch.setattr(recorder, "CHANGES_AT_ONCE", 1)
        monkeypatch.setattr(recorder, "CHANGES_PER_SECOND", 0.0001)
    agent, session = two_places(alive="/web")
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await eventually_async(lambda: relay.told() == [(TURN_STARTED, session)])
        (name,) = OpenWork(relay.journal).names()
        assert name != "laptop"
        agent.statuses.clear()
        agent.places = agent.places[:1]
        await reconnect(relay, agent)
        await eventually_async(lambda: not OpenWork(relay.journal).names())
        assert relay.told(TURN_ENDED) == ([(TURN_ENDED, session)] if is_told else [])
        assert all(entry.data["unseen"] for entry in relay.entries(TURN_ENDED))


async def test_of_more_instances_than_are_remembered_nothing_is_recorded_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_work, "MAX_NAMES", 1)
    agent, session = two_places(alive="/api")
    other = agent.add_session("/web").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await eventually_async(lambda: relay.told() == [(TURN_STARTED, session)])
        agent.statuses[other] = Status()
        for _ in range(3):
            await reconnect(relay, agent)
        assert relay.told() == [(TURN_STARTED, session)], "or it would be written each time"
        agent.tell(StatusChanged(session, None))
        begun = [(TURN_STARTED, session), (TURN_ENDED, session), (TURN_STARTED, other)]
        await eventually_async(lambda: relay.told() == begun, within=20)


def test_what_is_remembered_of_a_machine_is_bounded_in_bytes_and_what_becomes_less_always_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_work, "MAX_BYTES", 1_000)
    journal = Journal(None)
    work = OpenWork(journal)
    large = Open(turns={f"ses_{number}": "x" * 40 for number in range(15)}, machine="laptop")
    small = Open(turns={"ses_1": "x"}, machine="laptop")
    work.set("laptop-api", large)
    assert work.has_room("laptop-web", small)
    assert not work.has_room("laptop-web", large)
    assert work.has_room("desktop", Open(turns=large.turns, machine="desktop")), "another machine has its own room"
    assert work.has_room("laptop-api", small)
    assert work.has_room("laptop-web", Open(machine="laptop"))
    anew = OpenWork(journal)
    assert not anew.has_room("laptop-web", large), "whoever takes over counts what is there"
    work.set("laptop-api", Open())
    anew.names()
    assert anew.has_room("laptop-web", large), "what is gone counts no more"
    journal.close()


def test_of_a_machine_without_room_those_that_are_away_for_longest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_work, "MAX_NAMES", 3)
    journal = Journal(None)
    work = OpenWork(journal)
    work.set("other", Open(lost=0.5, machine="desktop"))
    for name, lost in (("second", 2.0), ("first", 1.0), ("there", None)):
        work.set(name, Open(turns={"ses_1": "x"}, lost=lost, machine="laptop"))
    new = Open(turns={"ses_1": "x"}, machine="laptop")
    for name, left in (("a", ["a", "second", "there"]), ("b", ["a", "b", "there"])):
        assert work.has_room(name, new)
        work.set(name, new)
        assert sorted(work.names()) == sorted([*left, "other"])
    assert not work.has_room("c", new), "those that are there are not forgotten"
    assert work.has_room("a", Open(turns={"ses_1": "x", "ses_2": "y"}, machine="laptop"))
    journal.close()


async def test_the_most_that_may_be_open_fits_into_its_state(tmp_path: Path) -> None:
    agent = FakeAgent()
    for number in range(MAX_OPEN + 20):
        session = f"{number:04}".ljust(MAX_ID, '"')
        agent.made[session] = Session(id=session, directory="/", title="\U0001f600" * 100, updated=float(number))
        agent.statuses[session] = Status()
        ask = f"per_{number:04}".ljust(MAX_ID, '"')
        agent.open[ask] = Permission(id=ask, session_id=session, action="bash", patterns=("\U0001f600" * 300,))
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await eventually_async(lambda: len(relay.entries(ASK_OPENED)) == MAX_OPEN, within=30)
        assert len(relay.entries(TURN_STARTED)) == MAX_OPEN
        assert len(open_work._ADAPTER.dump_json(OpenWork(relay.journal).at("laptop"))) > MAX_STATE_BYTES // 2


async def test_an_id_that_is_none_costs_the_others_nothing(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.statuses = {"x" * (MAX_ID + 1): Status(), "\x00": Status(), "\ud83d": Status()}
    session = agent.add_session("/").id
    agent.statuses[session] = Status()
    async with fake_relay(tmp_path, laptop=agent) as relay:
        await eventually_async(lambda: relay.told() == [(TURN_STARTED, session)])


async def test_an_instance_that_cannot_be_recorded_is_logged_once_and_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(instance: Instance, root: str) -> str:
        if instance.name == "laptop":
            raise ValueError("too large")
        return title_of(instance, root)

    monkeypatch.setattr(recorder, "title_of", broken)
    agent, calm = FakeAgent(), FakeAgent()
    session, other = agent.add_session("/").id, calm.add_session("/").id
    async with fake_relay(tmp_path, lost_after=0.0, laptop=agent, desktop=calm) as relay:
        for name in ("laptop", "desktop"):
            await relay.fleet.find_live(name)
        for _ in range(5):
            agent.tell(StatusChanged(session, Status()))
        calm.tell(StatusChanged(other, Status()))
        await eventually_async(lambda: relay.told() == [(TURN_STARTED, other)])
        await eventually_async(lambda: any(i.state.is_busy(session) for i in relay.fleet.all_instances()))
        calm.fail(Unreachable("the line broke"))
        await eventually_async(lambda: (INSTANCE_LOST, "") in relay.told(), within=20)
    failures = [record for record in caplog.records if record.name == recorder.__name__]
    assert len(failures) == 1
    assert "laptop" in failures[0].getMessage()


@pytest.mark.usefixtures("ten_changes")
async def test_of_many_that_are_away_at_once_each_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(30):
        OpenWork(journal).set(f"laptop-{number}", Open(turns={"ses_1": ""}, machine="laptop"))
    OpenWork(journal).set("desktop", Open(turns={"ses_1": ""}, machine="desktop"))
    journal.close()
    async with fake_relay(tmp_path, lost_after=0.0) as relay:
        await eventually_async(lambda: len(relay.entries(INSTANCE_LOST)) >= 11, within=20)
        lost = [entry.instance for entry in relay.entries(INSTANCE_LOST)]
        assert "desktop" in lost
        assert len(lost) == 11


async def test_that_what_runs_still_runs_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = FakeAgent()
    session, other = agent.add_session("/").id, agent.add_session("/").id
    async with fake_relay(tmp_path, laptop=agent) as relay:
        instance = await relay.fleet.find_live("laptop")
        agent.tell(StatusChanged(session, Status()))
        await eventually_async(lambda: relay.told() == [(TURN_STARTED, session)])
        looks: list[str] = []
        at = OpenWork.at

        def counted(work: OpenWork, name: str) -> Open:
            looks.append(name)
            return at(work, name)

        monkeypatch.setattr(OpenWork, "at", counted)
        for _ in range(20):
            agent.tell(StatusChanged(session, Status()))
        agent.tell(StatusChanged(other, Status()))
        await eventually_async(lambda: instance.state.is_busy(other))
        assert looks == ["laptop"]
        for each in (None, Status(), None):
            agent.tell(StatusChanged(session, each))
        ended = [(TURN_ENDED, session), (TURN_STARTED, session), (TURN_ENDED, session)]
        await eventually_async(lambda: relay.told() == [(TURN_STARTED, session), (TURN_STARTED, other), *ended])
