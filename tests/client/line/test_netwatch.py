"""What the watch of the network decides on; that it notices real changes is `test_network`'s."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from opencode_connected.line import netwatch
from opencode_connected.line.netwatch import NetworkChange
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Sources:
    """The addresses that packets would leave from, set by the test: one for each target."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: tuple[str | None, ...] = ("192.0.2.5", None)
        self.targets: tuple[object, ...] = ()
        self.looks = 0
        monkeypatch.setattr(netwatch, "_sources", self._look)
        monkeypatch.setattr(netwatch, "_LOOK_SECONDS", 0.01)
        monkeypatch.setattr(netwatch, "_OFFLINE_LOOK_SECONDS", 0.01)

    def _look(self, targets: tuple[object, ...]) -> tuple[str | None, ...]:
        self.targets = targets
        self.looks += 1
        return self.now

    async def become(self, *now: str | None) -> None:
        """Change, and wait until that has been seen."""
        self.now = now
        seen = self.looks
        await eventually_async(lambda: self.looks >= seen + 3)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    return Sources(monkeypatch)


@asynccontextmanager
async def watch(
    on_change: Callable[[NetworkChange], None],
    command: str = "ssh -F none 192.0.2.1",
    late_ssh: Callable[[], int | None] = lambda: None,
) -> AsyncIterator[None]:
    task = asyncio.create_task(netwatch.NetWatch(command, on_change, late_ssh).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_another_address_is_a_change_and_a_further_one_is_not(sources: Sources) -> None:
    changes: list[NetworkChange] = []
    async with watch(changes.append):
        await sources.become("192.0.2.5", None)
        await sources.become("192.0.2.5", "2001:db8::5")
        assert changes == []

        await sources.become("192.0.2.6", "2001:db8::5")
        assert changes == [NetworkChange.ADDRESS]


async def test_going_offline_is_no_change_but_coming_back_is(sources: Sources) -> None:
    changes: list[NetworkChange] = []
    async with watch(changes.append):
        await sources.become("192.0.2.5", None)
        await sources.become(None, None)
        assert changes == []

        await sources.become("192.0.2.5", None)
        assert changes == [NetworkChange.ONLINE]


async def test_a_machine_that_slept_counts_as_changed(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[NetworkChange] = []
    asleep = [0.0]
    wall = time.time
    monkeypatch.setattr("opencode_connected.line.netwatch.time.time", lambda: wall() + asleep[0])
    async with watch(changes.append):
        await sources.become("192.0.2.5", None)
        # Slewed little by little, a clock runs as far ahead, but it is not sleep.
        for _ in range(8):
            asleep[0] += 1
            await sources.become("192.0.2.5", None)
        assert changes == []

        asleep[0] += 60
        await eventually_async(lambda: changes)

    assert changes == [NetworkChange.SLEPT]


async def test_the_way_to_the_relay_is_watched_if_ssh_connects_directly(sources: Sources) -> None:
    async with watch(print, "ssh -F none -p 2222 ann@192.0.2.77"):
        await sources.become("192.0.2.5")

    assert [target.address[0] for target in sources.targets if isinstance(target, netwatch._Target)] == ["192.0.2.77"]


@pytest.mark.parametrize(
    "command",
    [
        "gcloud compute ssh vm --zone z --",
        "no-such-directory/ssh vm",
        "ssh -F none -J jump 192.0.2.77",
        "ssh -F none -o ProxyCommand='nc %h %p' 192.0.2.77",
        "ssh -F none relay.invalid",
        "ssh -F none",
    ],
)
async def test_the_default_route_is_watched_if_that_cannot_be_told(sources: Sources, command: str) -> None:
    async with watch(print, command):
        await sources.become("192.0.2.5")

    assert sources.targets == netwatch._DEFAULT_ROUTE


class Names:
    """A name and where it leads to, as the test has it; and an ssh, which is this very process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.leads_to: tuple[str, ...] = ()
        self.rotation = itertools.cycle(("192.0.2.9", "192.0.2.10", "192.0.2.11"))
        self.rotates = False
        self.lookups = 0
        self.is_late = False
        monkeypatch.setattr(netwatch, "_resolve", self._resolve)
        monkeypatch.setattr(netwatch, "_LATE_LOOK_SECONDS", 0.01)
        monkeypatch.setattr(netwatch, "_RESOLVE_AGAIN_SECONDS", 0.01)

    async def _resolve(self, host: str) -> tuple[netwatch._Target, ...]:
        assert host == "relay.test"
        self.lookups += 1
        if self.rotates:
            self.leads_to = (next(self.rotation),)
        return tuple(netwatch._Target(socket.AF_INET, (address, 9)) for address in self.leads_to)

    def late_ssh(self) -> int | None:
        return os.getpid() if self.is_late else None


async def test_a_name_that_leads_elsewhere_ends_a_line_whose_relay_is_late_and_no_other(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch)
    changes: list[NetworkChange] = []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        async with watch(changes.append, "ssh -F none relay.test", names.late_ssh):
            await sources.become("192.0.2.5", None)
            names.leads_to = ("192.0.2.9",)
            at_the_start = names.lookups
            await sources.become("192.0.2.5", None)
            assert names.lookups == at_the_start, "nobody asks while all is well"

            names.leads_to, names.is_late = ("192.0.2.9", "127.0.0.1"), True
            await eventually_async(lambda: names.lookups >= at_the_start + 3, "it is looked up")
            names.leads_to = ()  # no answer is no reason
            await eventually_async(lambda: names.lookups >= at_the_start + 6, "it is looked up again")
            assert changes == []

            names.leads_to = ("192.0.2.9",)
            await eventually_async(lambda: changes, "it leads elsewhere")
            assert changes[0] is NetworkChange.ELSEWHERE


async def test_a_late_line_is_kept_where_a_name_leads_to_one_of_many_addresses_each_time(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch)
    names.rotates, names.is_late = True, True
    changes: list[NetworkChange] = []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        async with watch(changes.append, "ssh -F none relay.test", names.late_ssh):
            await sources.become("192.0.2.5", None)
            await eventually_async(lambda: names.lookups >= 6, "it is looked up again and again")
            assert changes == []


async def test_a_line_that_is_heard_of_between_two_look_ups_is_kept(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch)
    names.leads_to = ("192.0.2.9",)
    # Late before a look-up and behind it, and then no more, until the next time.
    looks = itertools.cycle((os.getpid(), os.getpid(), None))
    changes: list[NetworkChange] = []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        async with watch(changes.append, "ssh -F none relay.test", lambda: next(looks)):
            await sources.become("192.0.2.5", None)
            await eventually_async(lambda: names.lookups >= 6, "it is looked up each time")
            assert changes == []
