"""The sessions of a fleet in one list: newest first, found by title, and no machine that is silent holds it up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from opencode_common.times import moment_text
from opencode_fleet import session_list
from opencode_fleet.agent import Capability
from opencode_fleet.drive import Driver
from opencode_fleet.errors import Unreachable
from opencode_fleet.model import Status
from opencode_mcp.face import Face
from opencode_mcp.tools.sessions import sessions
from opencode_mcp.views.times import age_text
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.waiting import eventually_async

if TYPE_CHECKING:
    from mcp_types import CallToolResult

    from opencode_fleet.fleet import Fleet

HOME = "/home/ann/api"


def face_of(fleet: Fleet) -> Face:
    return Face(fleet, Driver(fleet, 30))


def rows(answer: CallToolResult) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (answer.structured_content or {})["sessions"]
    return found


def text(answer: CallToolResult) -> str:
    return "\n".join(getattr(block, "text", "") for block in answer.content)


async def are(fleet: Fleet, **wanted: str) -> bool:
    assert {instance.name: instance.state_name() for instance in await fleet.instances()} == wanted
    return True


def has_all(fleet: Fleet, count: int) -> bool:
    return sum(instance.connected.is_set() for instance in fleet.all_instances()) == count


async def test_the_newest_of_all_machines_come_first_with_all_that_their_records_tell() -> None:
    laptop, desk = FakeAgent(HOME), FakeAgent("/srv")
    old, other = laptop.add_session(HOME, "the login"), desk.add_session("/srv", "another")
    newest = laptop.add_session(HOME, "newest")
    laptop.made[newest.id] = replace(
        newest, agent="plan", model="a/b", cost=0.126, tokens=12_345, files=3, additions=10, deletions=2
    )
    laptop.clock = desk.clock = newest.updated + 300
    async with fake_fleet(laptop=laptop, desk=desk) as (fleet, _):
        answer = await sessions(face_of(fleet))
    assert [row["id"] for row in rows(answer)] == [newest.id, other.id, old.id]
    handle = rows(answer)[0]["handle"]
    assert handle.startswith("s")
    assert rows(answer)[0] == {
        "id": newest.id,
        "handle": handle,
        "instance": "laptop",
        "title": "newest",
        "state": "idle",
        "updated": newest.updated,
        "agent": "plan",
        "model": "a/b",
        "files": 3,
        "additions": 10,
        "deletions": 2,
        "cost": 0.126,
        "tokens": 12_345,
    }
    line = f"{handle} {newest.id}: idle · laptop · “newest” · 5 min ago · agent plan · model a/b"
    assert f"{line} · 3 files +10 -2 · $0.13 · 12,345 tokens" in text(answer)
    assert (answer.structured_content or {}).get("problems") is None


async def test_they_are_found_by_a_part_of_their_title_and_of_one_instance() -> None:
    laptop, desk = FakeAgent(HOME), FakeAgent("/srv")
    wanted, _ = laptop.add_session(HOME, "Fix the LOGIN"), laptop.add_session(HOME, "else")
    there = desk.add_session("/srv", "login page")
    async with fake_fleet(laptop=laptop, desk=desk) as (fleet, _):
        face = face_of(fleet)
        assert [row["id"] for row in rows(await sessions(face, text=" login "))] == [there.id, wanted.id]
        assert [row["id"] for row in rows(await sessions(face, "lap", "login"))] == [wanted.id]
        none = await sessions(face, text="logout")
    assert rows(none) == []
    assert "the text of messages is not searched" in text(none)


async def test_more_than_were_asked_for_are_counted() -> None:
    laptop = FakeAgent(HOME)
    for number in range(4):
        laptop.add_session(HOME, f"number {number}")
    async with fake_fleet(laptop=laptop) as (fleet, _):
        answer = await sessions(face_of(fleet), limit=2)
        assert [row["title"] for row in rows(answer)] == ["number 3", "number 2"]
        assert (answer.structured_content or {})["more"] == 1
        assert "1 or more others are left out" in text(answer)
        assert "left out" not in text(await sessions(face_of(fleet), limit=4))


async def test_sessions_stand_by_their_age_however_wrong_the_clocks_of_their_machines_are() -> None:
    ahead, right, odd = FakeAgent(HOME), FakeAgent("/srv"), FakeAgent("/opt")
    older, newest, never = ahead.add_session(HOME), right.add_session("/srv"), odd.add_session("/opt")
    now = time.time()
    ahead.clock = now + 7_200
    ahead.made = {older.id: replace(older, updated=now + 7_200 - 600)}
    right.made = {newest.id: replace(newest, updated=now - 60)}
    odd.made = {never.id: replace(never, updated=now + 1e9)}
    async with fake_fleet(right=right, ahead=ahead, odd=odd) as (fleet, _):
        await eventually_async(partial(are, fleet, right="idle", ahead="idle", odd="idle"))
        found = rows(await sessions(face_of(fleet)))
    assert [row["id"] for row in found] == [newest.id, older.id, never.id]


async def test_what_a_session_does_is_told() -> None:
    laptop = FakeAgent(HOME)
    idle, busy, retries, waits = (laptop.add_session(HOME) for _ in range(4))
    child = laptop.add_session(HOME, parent_id=waits.id)
    laptop.statuses = {busy.id: Status(), retries.id: Status("retry", 2, "overloaded")}
    laptop.add_ask(child.id)
    async with fake_fleet(laptop=laptop) as (fleet, _):
        states = {row["id"]: row["state"] for row in rows(await sessions(face_of(fleet)))}
    assert states == {idle.id: "idle", busy.id: "busy", retries.id: "retry", waits.id: "waits"}


async def test_one_that_does_not_tell_its_sessions_holds_up_nobody_and_is_listed_as_last_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_list, "ANSWER_WITHIN", 0.2)
    hung, gone, well = FakeAgent(HOME), FakeAgent("/srv"), FakeAgent("/opt")
    known, lost, here = hung.add_session(HOME, "a"), gone.add_session("/srv", "b"), well.add_session("/opt", "c")
    async with fake_fleet(hung=hung, gone=gone, well=well) as (fleet, _):
        await eventually_async(partial(are, fleet, hung="idle", gone="idle", well="idle"))
        hung.telling.clear()
        gone.fail(Unreachable("the line is cut", refused=True))
        await eventually_async(partial(are, fleet, hung="idle", gone="offline", well="idle"))
        answer = await sessions(face_of(fleet))
        states = {row["id"]: row["state"] for row in rows(answer)}
        assert states == {here.id: "idle", lost.id: "unknown", known.id: "unknown"}
        first, second = sorted((answer.structured_content or {})["problems"])
        said = "gone did not tell its sessions (nothing listens at its port); they are listed as they were at 20"
        assert first.startswith(said)
        assert second == "hung did not tell its sessions (it did not answer in time)"
        assert second in text(answer)
        assert [row["id"] for row in rows(await sessions(face_of(fleet), "gone", "B"))] == [lost.id]


async def test_a_service_with_many_directories_that_hangs_takes_no_time_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_list, "ANSWER_WITHIN", 0.3)
    monkeypatch.setattr(session_list, "ASKED_AT_ONCE", 3)
    places = [f"/{number}" for number in range(20)]
    hung, well = FakeAgent(*places, can=frozenset({Capability.DIRECTORIES})), FakeAgent(HOME)
    here = well.add_session(HOME, "c")
    async with fake_fleet(hung=hung, well=well) as (fleet, _):
        await eventually_async(partial(has_all, fleet, len(places) + 1))
        hung.telling.clear()
        asked = list(fleet.all_instances())
        async with asyncio.timeout(20):
            found = await session_list.list_sessions(asked, "", 20)
    assert [listed.session.id for listed in found.sessions if not listed.is_old] == [here.id]
    assert {instance.endpoint.name for instance in found.silent} == {"hung"}
    assert len(hung.asked) <= session_list.ASKED_OF_ONE_AGENT


async def test_who_is_not_connected_is_not_asked() -> None:
    gone = FakeAgent(HOME)
    known = gone.add_session(HOME)
    async with fake_fleet(gone=gone) as (fleet, _):
        await eventually_async(partial(are, fleet, gone="idle"))
        gone.fail(Unreachable("the line is cut"))
        await eventually_async(partial(are, fleet, gone="unresponsive"))
        gone.trouble = None
        gone.telling.clear()
        (found,) = (await session_list.list_sessions([await fleet.find("gone")], "", 20)).sessions
    assert (found.session.id, found.is_old, gone.asked) == (known.id, True, [])


async def test_a_session_that_two_instances_share_is_listed_once_with_the_one_that_runs_it() -> None:
    first, second = FakeAgent(HOME), FakeAgent(HOME)
    shared = first.add_session(HOME)
    second.made[shared.id] = shared
    second.statuses[shared.id] = Status()
    async with fake_fleet(first=first, second=second) as (fleet, _):
        await eventually_async(partial(are, fleet, first="idle", second="busy"))
        assert [(row["instance"], row["state"]) for row in rows(await sessions(face_of(fleet)))] == [
            ("second", "busy")
        ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "now"), (59, "now"), (61, "1 min ago"), (7_300, "2 h ago"), (200_000, "2 days ago")],
)
def test_an_age_is_said_in_few_words(seconds: float, said: str) -> None:
    assert age_text(seconds) == said


def test_a_time_is_utc_whatever_a_record_says() -> None:
    assert moment_text(1_796_000_520) == "2026-11-30 01:02 UTC"
    assert moment_text(-1e15) == "1970-01-01 00:00 UTC"
    assert moment_text(1e15) == "9999-12-31 23:59 UTC"
