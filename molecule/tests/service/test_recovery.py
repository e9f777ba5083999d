"""What breaks between the clients and the relay in the middle of use, and how soon they are back."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.hosts.chain import Model
from support.hosts.scenario import GONE_WITHIN, back
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.hosts.scenario import Machine, ScenarioRelay, SeenRegistration

# What breaks comes back within a minute, on a machine that has other work.
pytestmark = pytest.mark.timeout(600)


def _kill_agent(relay: ScenarioRelay) -> None:
    relay.run("kill", "-KILL", str(relay.agent_pid()))


def _restart_sshd_and_its_sessions(relay: ScenarioRelay) -> None:
    connections = [str(pid) for pid in relay.connections()]
    relay.run("systemctl", "restart", "ssh.service")
    relay.run("kill", "-KILL", *connections)


@pytest.mark.parametrize("fault", [_kill_agent, _restart_sshd_and_its_sessions])
def test_a_turn_goes_on_through(
    relay: ScenarioRelay,
    laptop: Machine,
    fleet: dict[str, SeenRegistration],
    fault: Callable[[ScenarioRelay], None],
    figure: Callable[[str, float], None],
) -> None:
    with _in_mid_turn(relay, laptop, fault.__name__):
        fault(relay)
        figure(f"{fault.__name__.strip('_')}, in mid-turn: registered again", back(relay, laptop, fleet))


def test_a_turn_of_opencode_2_goes_on_through_a_restart_of_the_launchers_units(
    relay: ScenarioRelay, laptop: Machine, fleet: dict[str, SeenRegistration]
) -> None:
    def services() -> list[str]:
        return laptop.host.output("pgrep", "-u", laptop.person, "-f", "opencode .*--service").split()

    before, old = services(), set(fleet.values())
    name = next(iter(relay.registered(laptop.client)))
    message = "before GATE:restarted and-after"
    model = Model(laptop.host, laptop.model_port)
    with relay.tools(("send", {"instance": name, "message": message, "session": "new"})) as client:
        eventually(lambda: model.times_prompted(message) == 1, "the turn runs", within=60)
        laptop.systemctl("restart", *laptop.units())
        # Whichever is up first holds the line, by its own name.
        eventually(lambda: relay.registered(laptop.client), "registered anew", within=60)
        eventually(lambda: not set(relay.registered(laptop.client).values()) & old, "registered anew", within=60)
        model.release("restarted")
        # Where no launcher was up again within seconds, it says that the turn goes on.
        assert client.ended() == 0, client.errors
        (sent,) = (json.loads(line) for line in client.lines)
    assert not sent["is_error"], sent

    def is_answered() -> bool:
        (read,) = relay.call_tools(("read", {"instance": name}))
        assert read["text"].count(f"user: {message}") == 1
        assert "and-after" in read["text"].partition(message)[2]
        return True

    eventually(is_answered, "the turn's end", within=60)
    assert model.times_prompted(message) == 1
    assert services() == before != []


@contextmanager
def _in_mid_turn(relay: ScenarioRelay, machine: Machine, marker: str) -> Iterator[None]:
    """Have a turn run meanwhile, let it end, and see that `send` has its answer and that it ran once."""
    name = next(iter(relay.registered(machine.client)))
    message = f"before GATE:{marker} and-after"
    model = Model(machine.host, machine.model_port)
    with relay.tools(
        ("send", {"instance": name, "message": message, "session": "new"}), ("read", {"instance": name})
    ) as client:
        eventually(lambda: model.times_prompted(message) == 1, "the turn runs", within=60)
        yield
        model.release(marker)
        assert client.ended() == 0, client.errors
        sent, read = (json.loads(line) for line in client.lines)
    assert not sent["is_error"]
    assert "and-after" in sent["text"]
    assert read["text"].count(f"user: {message}") == 1
    assert model.times_prompted(message) == 1


@contextmanager
def _cut(relay: ScenarioRelay, address: str) -> Iterator[None]:
    """Lose every packet between the relay and an address, without anybody being told."""
    chains = "chain in { type filter hook input priority -10; ip saddr %s drop; }; "
    chains += "chain out { type filter hook output priority -10; ip daddr %s drop; }; "
    relay.run("nft", "table ip cut { " + chains % (address, address) + "}")
    try:
        yield
    finally:
        relay.run("nft", "delete", "table", "ip", "cut")


def test_a_client_whose_network_is_cut_is_off_the_list_and_back_with_its_network(
    relay: ScenarioRelay,
    laptop: Machine,
    desktop: Machine,
    fleet: dict[str, SeenRegistration],
    figure: Callable[[str, float], None],
) -> None:
    with _cut(relay, laptop.host.address()):
        # The last message may have come just before: 4 s between two of them, and 12 s after the last.
        eventually(lambda: not relay.registered(laptop.client), "it is off the list", within=GONE_WITHIN + 5)
    figure("network cut, then given back: registered again", back(relay, laptop, fleet))
    others = {name: entry for name, entry in fleet.items() if entry.client == desktop.client}
    assert others.items() <= relay.registrations().items()


def test_a_client_that_gets_another_address_comes_back_from_there(
    relay: ScenarioRelay, laptop: Machine, fleet: dict[str, SeenRegistration], figure: Callable[[str, float], None]
) -> None:
    device, old, length = laptop.host.interface()
    route = laptop.host.output("ip", "route", "show", "default").split()
    new = f"{old.rpartition('.')[0]}.250"

    def move(before: str, after: str) -> None:
        laptop.host.run("ip", "address", "add", f"{after}/{length}", "dev", device)
        laptop.host.run("ip", "address", "delete", f"{before}/{length}", "dev", device)
        # The second address of a subnet goes with the first, unless it is promoted: then it is there already.
        laptop.host.run("ip", "address", "replace", f"{after}/{length}", "dev", device)

    move(old, new)
    try:
        figure("another address, the old path black-holed: registered again", back(relay, laptop, fleet))
        relay.logs(f"client {laptop.client} connected from {new} ")
    finally:
        again = relay.registrations()
        move(new, old)
        laptop.host.run("ip", "route", "replace", *route)
    back(relay, laptop, again)


def test_a_session_whose_launcher_hangs_is_ended_after_15_s_of_silence(
    relay: ScenarioRelay, desktop: Machine, fleet: dict[str, SeenRegistration]
) -> None:
    pattern = "ssh .*-R 127.0.0.1:"
    desktop.host.run("pkill", "-STOP", "-u", desktop.person, "-f", pattern)
    try:
        eventually(lambda: not relay.registered(desktop.client), "it is off the list", within=GONE_WITHIN + 5)
    finally:
        desktop.host.run("pkill", "-CONT", "-u", desktop.person, "-f", pattern, check=False)
    back(relay, desktop, fleet)
