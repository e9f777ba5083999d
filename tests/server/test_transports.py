"""Transports can be exchanged: the fleet lives on what any of them tells, and no fault of one goes unnoticed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from opencode_fleet.errors import NoSuchInstance
from opencode_fleet.fleet import Fleet
from opencode_fleet.settings import ServerSettings, load_settings
from opencode_fleet.transports import TRANSPORTS
from opencode_fleet.transports.base import Transport
from opencode_fleet.transports.local_relay import LocalRelay
from support.fleet.fake_transport import FakeTransport
from support.opencodes.fake_fleet import FakeFleet
from support.ports import free_port
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def a_fleet() -> AsyncIterator[tuple[Fleet, FakeTransport]]:
    transport = FakeTransport()
    async with Fleet(transport, ServerSettings(health_timeout=1)).running() as fleet:
        yield fleet, transport


async def states(fleet: Fleet) -> dict[str, str]:
    return {instance.name: instance.state_name() for instance in await fleet.instances()}


async def show(fleet: Fleet, wanted: dict[str, str]) -> bool:
    return await states(fleet) == wanted


def test_the_setting_names_them_and_makes_the_one_it_names() -> None:
    settings = load_settings({"TRANSPORT": "local-relay", "RELAY_REGISTRY_DIR": "/own"}, TRANSPORTS)
    transport = TRANSPORTS[settings.transport](settings)
    assert isinstance(transport, Transport)
    assert isinstance(transport, LocalRelay)


async def test_the_fleet_needs_nothing_but_the_interface(tmp_path: Path) -> None:
    with FakeFleet(tmp_path / "elsewhere") as fakes:
        (port,) = fakes.add(1).values()
        async with a_fleet() as (fleet, transport):
            assert await states(fleet) == {}
            transport.announce("near", f"http://127.0.0.1:{port}")
            await eventually_async(lambda: show(fleet, {"near": "idle"}))
            assert transport.alive == ["near"]
            transport.withdraw("near")
            await eventually_async(lambda: show(fleet, {"near": "offline"}))


async def test_it_hears_of_every_refusal() -> None:
    async with a_fleet() as (fleet, transport):
        transport.announce("dead", f"http://127.0.0.1:{free_port()}")
        await eventually_async(lambda: len(transport.refused) >= 3)
        assert await states(fleet) == {"dead": "offline"}
        assert transport.alive == []


async def test_one_that_breaks_down_is_noted_and_what_is_known_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeFleet(tmp_path / "elsewhere") as fakes:
        (port,) = fakes.add(1).values()
        async with a_fleet() as (fleet, transport):
            transport.announce("near", f"http://127.0.0.1:{port}")
            await eventually_async(lambda: show(fleet, {"near": "idle"}))
            transport.break_down(RuntimeError("a bug"))
            await eventually_async(fleet.problems)
            assert "restart it" in fleet.problems()[0]
            assert await states(fleet) == {"near": "idle"}
            assert "a bug" in caplog.text


async def test_one_that_says_nothing_of_its_own_still_says_how_to_start_an_instance() -> None:
    async with a_fleet() as (fleet, transport):
        with pytest.raises(NoSuchInstance, match=r"^no instance is registered; start one with `opencode-connected`"):
            await fleet.find("laptop")
        transport.break_down(RuntimeError("a bug"))
        await eventually_async(fleet.problems)
        with pytest.raises(NoSuchInstance, match="restart it"):
            await fleet.find("laptop")
