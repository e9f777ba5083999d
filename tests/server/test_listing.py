"""The listing of instances: its order, its filter, how old what it tells is, and its bounds."""

from __future__ import annotations

import time
from typing import Any

import pytest

from opencode_fleet.agent import Capability
from opencode_fleet.errors import Unreachable
from opencode_fleet.model import Status
from opencode_mcp.tools.inbox import inbox
from opencode_mcp.tools.instances import instances
from opencode_mcp.views.instances import MAX_LISTING, MAX_ROWS
from support.fleet.fake_relay import FakeRelay, fake_relay, move, structured, text_of
from support.opencodes.fake_agent import FakeAgent
from support.waiting import eventually_async

MANY = 500


async def listed(relay: FakeRelay, wanted: str = "") -> dict[str, dict[str, Any]]:
    """Return the rows by name, in order."""
    rows = structured(await instances(relay.face, wanted))["instances"]
    return {row["name"]: row for row in rows}


async def settled(relay: FakeRelay, count: int) -> None:
    """Wait until so many instances are connected."""

    def is_so() -> bool:
        return sum(instance.connected.is_set() for instance in relay.fleet.all_instances()) == count

    await eventually_async(is_so, f"{count} connected instances")


async def test_what_needs_the_person_comes_first_then_what_is_busy_then_the_rest_then_what_is_away() -> None:
    agents = {name: FakeAgent() for name in ("a_away", "b_idle", "c_busy", "d_asks", "e_busy", "f_asks")}
    for name, agent in agents.items():
        session = agent.add_session("/").id
        if name.endswith("asks"):
            agent.add_ask(session)
        if name.endswith("busy"):
            agent.statuses[session] = Status()
    async with fake_relay(None, lost_after=3600.0, **agents) as relay:
        await settled(relay, 6)
        before = time.time()
        agents["a_away"].fail(Unreachable("the line broke"))
        await settled(relay, 5)
        rows = await listed(relay)
        assert list(rows) == ["d-asks", "f-asks", "c-busy", "e-busy", "b-idle", "a-away"]
        # What is told of it is as old as that.
        assert before <= rows["a-away"]["since"] <= time.time()
        assert [name for name, row in rows.items() if "since" in row] == ["a-away"]
        assert "a-away: unresponsive since 20" in text_of(await instances(relay.face))


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("busy", ["api"]),
        ("IDLE", ["web", "etl"]),
        ("needs-permission", []),
        ("login", ["web"]),
        ("/srv", ["etl", "web"]),
        ("/srv idle elsewhere", ["etl", "web"]),
        ("ap", ["api"]),
        ("busy login", []),
    ],
)
async def test_a_filter_takes_states_and_parts_of_names_machines_directories_and_titles(
    wanted: str, names: list[str]
) -> None:
    api, web, etl = FakeAgent("/home/ann"), FakeAgent("/srv/web"), FakeAgent("/srv/etl")
    api.statuses[api.add_session("/home/ann").id] = Status()
    web.add_session("/srv/web", "Fix the Login")
    async with fake_relay(None, api=api, web=web, etl=etl) as relay:
        await settled(relay, 3)
        assert sorted(await listed(relay, wanted)) == sorted(names)


async def test_a_filter_that_nothing_fits_says_so() -> None:
    async with fake_relay(None, laptop=FakeAgent()) as relay:
        await settled(relay, 1)
        assert "none of 1 instances fits 'nothing like it'" in text_of(await instances(relay.face, "nothing like it"))


async def test_one_machine_with_very_many_instances_hides_none_of_another() -> None:
    many = FakeAgent(*(f"/{number:03}" for number in range(MAX_ROWS)), can=frozenset({Capability.DIRECTORIES}))
    async with fake_relay(None, many=many, zz=FakeAgent()) as relay:
        await settled(relay, MAX_ROWS + 1)
        await move(relay, "zz", "another")
        result = await instances(relay.face)
        rows = structured(result)["instances"]
        assert rows[-1]["name"] == "zz"
        assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
        left_out = MAX_ROWS + 1 - len(rows)
        assert f"{left_out} more are left out ({left_out} idle; of “elsewhere” {left_out})" in text_of(result)


async def test_five_hundred_instances_are_bounded_in_both_lists() -> None:
    agents = {f"laptop_{number}": FakeAgent(f"/home/person-{number}/project") for number in range(MANY)}
    for number, agent in enumerate(agents.values()):
        session = agent.add_session(agent.places[0].directory, "A title that is about as long as titles are").id
        if number % 2:
            agent.add_ask(session)
    async with fake_relay(None, lost_after=3600.0, **agents) as relay:
        await settled(relay, MANY)
        result = await instances(relay.face)
        shown = structured(result)
        assert len(shown["instances"]) <= MAX_ROWS
        assert {row["state"] for row in shown["instances"]} == {"needs-permission"}
        assert len(shown["instances"]) + sum(shown["left_out"].values()) == MANY
        assert len(text_of(result)) < MAX_LISTING + 1_000
        waits = await inbox(relay.face)
        listed_asks = structured(waits)
        assert len(listed_asks["asks"]) + listed_asks["left_out"] == MANY // 2
        assert len(text_of(waits)) < MAX_LISTING + 5_000
