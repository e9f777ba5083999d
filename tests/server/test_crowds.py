"""Whoever registers many names crowds out no other machine's instances, and no chat."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from opencode_fleet import fleet as fleet_module
from opencode_fleet.agent import Capability
from opencode_fleet.drive import Driver
from opencode_fleet.fleet import Fleet
from opencode_fleet.settings import ServerSettings
from opencode_fleet.transports.local_relay import LocalRelay
from opencode_mcp.views.instances import MAX_LISTING, MAX_ROWS
from support.chat.mcp_client import relay_client
from support.fleet.registry import register, registration
from support.opencodes.fake_agent import FakeAgent, fake_fleet
from support.opencodes.fake_fleet import FakeFleet
from support.ports import free_port
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.chat.mcp_client import RelayClient


@pytest.fixture
def fakes(registry_dir: Path) -> Iterator[FakeFleet]:
    with FakeFleet(registry_dir) as fleet:
        yield fleet


@pytest.fixture
def port(registry_dir: Path, fakes: FakeFleet) -> int:
    """The port of an instance that is not registered."""
    ((name, port),) = fakes.add(1).items()
    (registry_dir / f"{name}.json").unlink()
    return port


@asynccontextmanager
async def running_fleet(directory: Path) -> AsyncIterator[Fleet]:
    settings = ServerSettings(registry_dir=directory, discovery_interval=3600, health_timeout=5)
    async with Fleet(LocalRelay.from_settings(settings), settings).running() as fleet:
        yield fleet


async def is_in(fleet: Fleet, name: str, state: str) -> bool:
    return {i.name: i.state_name() for i in await fleet.instances()}.get(name) == state


async def is_gone(fleet: Fleet, name: str) -> bool:
    return name not in {instance.name for instance in await fleet.instances()}


async def come_and_go(fleet: Fleet, directory: Path, port: int, name: str, client: str | None) -> None:
    extra = {"client": client} if client else {}
    path = register(directory, registration(name, port, **extra))
    await eventually_async(partial(is_in, fleet, name, "idle"))
    path.unlink()
    await eventually_async(partial(is_in, fleet, name, "offline"))


@pytest.mark.parametrize("client", ["thief", None])
async def test_of_those_that_vanished_each_machine_s_own_oldest_are_forgotten(
    registry_dir: Path, port: int, monkeypatch: pytest.MonkeyPatch, client: str | None
) -> None:
    monkeypatch.setattr(fleet_module, "MAX_DEPARTED", 2)
    monkeypatch.setattr(fleet_module, "MAX_DEPARTED_PLAIN", 2)
    async with running_fleet(registry_dir) as fleet:
        await come_and_go(fleet, registry_dir, port, "laptop-api", "laptop")
        if client:
            await come_and_go(fleet, registry_dir, port, "plain", None)
        for number in range(5):
            await come_and_go(fleet, registry_dir, port, f"thief-{number}", client)
        found = [instance.name for instance in await fleet.instances()]
        assert found == ["laptop-api", *(["plain"] if client else []), "thief-3", "thief-4"]


async def test_what_never_was_an_opencode_is_not_remembered(registry_dir: Path) -> None:
    async with running_fleet(registry_dir) as fleet:
        path = register(registry_dir, registration("invented", free_port()))
        await eventually_async(lambda: is_in(fleet, "invented", "offline"))
        path.unlink()
        await eventually_async(lambda: is_gone(fleet, "invented"))


async def all_known(client: RelayClient, count: int) -> bool:
    result = (await client.call("instances")).structured
    left_out: dict[str, int] = result.get("left_out", {})
    states = {row["state"] for row in result["instances"]} | left_out.keys()
    assert len(result["instances"]) + sum(left_out.values()) == count
    return "connecting" not in states


async def test_a_listing_of_very_many_shows_the_living_and_counts_what_it_leaves_out(
    registry_dir: Path, fakes: FakeFleet
) -> None:
    # It sorts after all the others.
    ((old, port),) = fakes.add(1).items()
    (registry_dir / f"{old}.json").unlink()
    register(registry_dir, registration("zz-living", port))
    dead = free_port()
    for number in range(MAX_ROWS + 20):
        register(registry_dir, registration(f"{number:03}", dead))
    async with relay_client(registry_dir) as client:
        await eventually_async(lambda: all_known(client, MAX_ROWS + 21), within=60)
        answer = await client.call("instances")
        rows = answer.structured["instances"]
        assert rows[0]["name"] == "zz-living"
        assert len(rows) == MAX_ROWS
        assert answer.structured["left_out"] == {"offline": 21}
        assert answer.text.endswith(
            "\n21 more are left out (21 offline; of “test-host” 21); `read` and `send` reach each of them by its name"
        )
        refused = await client.call("read", instance=f"{MAX_ROWS + 19:03}")
        assert "is offline since" in refused.text


async def test_a_listing_of_long_names_and_directories_is_bounded_in_its_characters(registry_dir: Path) -> None:
    dead = free_port()
    for number in range(MAX_ROWS):
        register(
            registry_dir,
            registration(f"{number:03}" + "n" * 61, dead, cwd="/" + "d" * 4000, hostname="h" * 255, client="c" * 64),
        )
    async with relay_client(registry_dir) as client:
        await eventually_async(lambda: all_known(client, MAX_ROWS), within=60)
        answer = await client.call("instances")
        shown = len(answer.structured["instances"])
        assert 0 < shown == MAX_ROWS - answer.structured["left_out"]["offline"]
        assert len(answer.text) < MAX_LISTING + 300
        assert len(answer.text) > MAX_LISTING * 0.9
        assert all(len(row["directory"]) <= 120 for row in answer.structured["instances"])


async def test_no_other_machine_takes_a_session_by_claiming_to_run_it(registry_dir: Path, port: int) -> None:
    for name, client in (("laptop-api", "laptop"), ("laptop-tui", "laptop"), ("thief-x", "thief")):
        register(registry_dir, registration(name, port, client=client))
    async with running_fleet(registry_dir) as fleet:
        for name in ("laptop-api", "laptop-tui", "thief-x"):
            await eventually_async(partial(is_in, fleet, name, "idle"))
        mine, beside, thief = [await fleet.find(name) for name in ("laptop-api", "laptop-tui", "thief-x")]
        thief.state.ran["ses_1"] = time.monotonic()
        assert fleet.runner_of("ses_1", besides=mine) is None
        beside.state.ran["ses_1"] = time.monotonic()
        assert fleet.runner_of("ses_1", besides=mine) is beside


async def test_sixty_turns_at_once_in_two_directories_have_their_own_answers() -> None:
    agent = FakeAgent("/api", "/web", can=frozenset({Capability.DIRECTORIES}))
    sessions = [agent.add_session(("/api", "/web")[number % 2]) for number in range(60)]
    agent.gate.clear()
    async with fake_fleet(laptop_api=agent) as (fleet, _):
        await eventually_async(lambda: knows(fleet, 2))
        names = {instance.state.directory: instance for instance in await fleet.instances()}
        driver = Driver(fleet, 60)
        calls = [
            asyncio.create_task(driver.send(names[session.directory], f"for {session.id}", session.id, ignored))
            for session in sessions
        ]
        await eventually_async(lambda: len(agent.statuses) == len(sessions))
        agent.gate.set()
        outcomes = await asyncio.gather(*calls)
    assert [(outcome.result, outcome.text) for outcome in outcomes] == [
        ("done", f"echo: for {session.id}") for session in sessions
    ]
    assert len(agent.posted) == len(sessions)


async def knows(fleet: Fleet, count: int) -> bool:
    return [instance.state_name() for instance in await fleet.instances()] == ["idle"] * count


async def ignored(_text: str) -> None:
    """Take what is told while a message is answered."""
