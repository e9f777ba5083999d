"""The keeper and its tunnel: which port it takes, and what becomes of one that does not carry."""

from __future__ import annotations

import asyncio
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.line.held import Line, line
from support.opencodes.fake_health import FakeHealth
from support.ports import free_port
from support.waiting import eventually_async

if TYPE_CHECKING:
    from opencode_connected.line.command import LineSettings

FAKE_RELAY = Path(__file__).with_name("fake_relay.py")


@pytest.mark.usefixtures("impatient")
async def test_a_tunnel_that_does_not_carry_is_replaced_and_reported(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    with FakeHealth() as healthy:
        held = Line(settings, opencode)
        held.keeper._local_health = healthy.healthy
        await held.keeper.start()
        await held.register()
        # What answers through the tunnel is no OpenCode any more, while a healthy one answers here.
        opencode.status = 500
        await held.until("retrying", reconnects=1)
        assert "the tunnel does not carry" in str(held.keeper.state.error)

        opencode.status = 200
        await held.until("registered", reconnects=1)
        await held.keeper.close()


async def test_a_tunnel_that_is_slow_to_carry_at_first_is_asked_again_and_kept(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    opencode.status = 500
    held = Line(settings, opencode)

    async def healthy_from_now_on() -> bool:  # asked after the relay's first, vain probe
        opencode.status = 200
        return True

    held.keeper._local_health = healthy_from_now_on
    await held.keeper.start()
    assert await held.register() == "laptop-api"
    await held.keeper.close()

    assert held.kinds() == ["connected", "registered", "closed"]


async def test_a_block_of_ports_is_gone_through(settings: LineSettings, opencode: FakeHealth) -> None:
    free = free_port()
    block = replace(settings, ports=(opencode.port, free))

    for _ in range(4):  # whichever of the two comes first
        async with line(block, opencode) as held:
            await held.register()
            assert held.keeper.state.port == free
            assert held.keeper.state.reconnects == 0


async def test_a_port_that_the_relay_does_not_want_is_left_for_another(
    settings: LineSettings, opencode: FakeHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opencode_connected.line.ports.random.sample", lambda ports, _: list(ports))
    fake = shlex.join([sys.executable, str(FAKE_RELAY), "one-bad-port"])
    async with line(replace(settings, ssh_command=fake, ports=(10001, 10002)), opencode) as held:
        assert await held.register() == "laptop-api"
        assert held.keeper.state.port == 10002


async def test_a_block_that_the_relay_does_not_want_is_an_error_in_its_own_words(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    fake = shlex.join([sys.executable, str(FAKE_RELAY), "one-bad-port"])
    async with line(replace(settings, ssh_command=fake, ports=(10001,)), opencode) as held:
        registering = asyncio.create_task(held.register())
        await eventually_async(lambda: held.keeper.state.error, "the error")
        assert held.keeper.state.error == "port 10001 carries another instance"
        assert not registering.done()
        registering.cancel()


async def test_ports_that_are_all_taken_are_an_error_that_may_pass(
    settings: LineSettings, opencode: FakeHealth
) -> None:
    async with line(replace(settings, ports=(opencode.port,)), opencode) as held:
        state = await held.keeper.first_contact(10)

        assert (state.phase, state.hop) == ("retrying", "forward")
        assert str(opencode.port) in str(state.error)
