"""The launcher's own line against a provisioned relay: it is the same launcher as on a plain account."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from opencode_connected.line.command import LineSettings
from opencode_connected.line.keeper import LineKeeper
from opencode_connected.registration import OwnRegistration
from relay.raw_client import ID, OTHER_ID
from support.waiting import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.provisioned import ProvisionedRelay
    from support.opencodes.fake_health import FakeHealth

from contextlib import asynccontextmanager


@asynccontextmanager
async def line(
    relay: ProvisionedRelay, opencode: FakeHealth, *, ports: tuple[int, ...] = (), instance_id: str = ID
) -> AsyncIterator[LineKeeper]:
    settings = LineSettings(relay.ssh_command("laptop"), "/nowhere", ports, opencode.port, instance_id)
    keeper = LineKeeper(settings, lambda event: None, opencode.healthy)
    await keeper.start()
    try:
        yield keeper
    finally:
        await keeper.close()


def registration(opencode: FakeHealth) -> OwnRegistration:
    return OwnRegistration(
        name="api",
        hostname="ann",
        port=opencode.port,
        local_port=opencode.port,
        cwd="/home/ann/api",
        connected_at="2026-11-24T16:00:00Z",
    )


async def test_a_launcher_that_knows_its_ports_registers_at_the_first_try(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    ports = tuple(relay.ports_of("laptop"))
    async with line(relay, opencode, ports=ports) as keeper:
        name = await keeper.register(registration(opencode), name_is_default=True)
        assert name == "laptop-api"
        assert [event.kind for event in keeper.state.history] == ["connected", "registered", "renamed"]
        assert relay.registrations()["laptop-api"]["port"] in ports
    eventually(lambda: relay.registrations() == {}, "the goodbye")


async def test_a_launcher_that_knows_no_ports_is_told_the_free_ones(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    async with line(relay, opencode) as keeper:
        await keeper.register(registration(opencode), name_is_default=True)
        assert relay.registrations()["laptop-api"]["port"] in relay.ports_of("laptop")


async def test_two_instances_of_one_default_name_both_register(relay: ProvisionedRelay, opencode: FakeHealth) -> None:
    ports = tuple(relay.ports_of("laptop"))
    async with (
        line(relay, opencode, ports=ports) as first,
        line(relay, opencode, ports=ports, instance_id=OTHER_ID) as second,
    ):
        await first.register(registration(opencode), name_is_default=True)
        assert await second.register(registration(opencode), name_is_default=True) == "laptop-api-2"
        relay.until_registered("laptop-api", "laptop-api-2")


async def test_a_launcher_comes_back_by_itself_when_the_agent_was_killed(
    relay: ProvisionedRelay, opencode: FakeHealth
) -> None:
    async with line(relay, opencode, ports=tuple(relay.ports_of("laptop"))) as keeper:
        await keeper.register(registration(opencode), name_is_default=True)
        await asyncio.to_thread(relay.kill_agent)
        await asyncio.to_thread(relay.start_agent)
        await eventually_async(lambda: "laptop-api" in relay.registrations(), "it is registered again")
