"""What the tests of a provisioned scenario stand on. They run in a scenario that Molecule has converged."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.hosts.hosts import Host, RunningProgram
from support.hosts.scenario import (
    KNOWN_HOSTS,
    Attacker,
    Machine,
    ScenarioRelay,
    SeenRegistration,
    all_registered,
    inventory,
    play,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIGURES: pytest.StashKey[list[str]] = pytest.StashKey()
GUEST_PORT = 4500
"""Where the guest's OpenCode listens on its host."""
_STARTS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the removal of everything come last."""
    items.sort(key=lambda item: item.path.name == "test_removal.py")


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Note a figure, in seconds, for the end of the run. No test depends on one: the machine may have other work."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    return lambda what, seconds: figures.append(f"{seconds:6.1f} s  {what}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    terminalreporter.section("figures")
    for line in config.stash.get(_FIGURES, []):
        terminalreporter.line(line)


@pytest.fixture(scope="session")
def hosts() -> dict[str, dict[str, object]]:
    """The variables of each host, and the host of each group that has one."""
    listed = inventory(Path(os.environ["MOLECULE_INVENTORY_FILE"]))
    return {
        group: {"inventory_hostname": name, **listed["_meta"]["hostvars"][name]}
        for group in ("relay", "laptop", "desktop", "spare")
        for name in listed.get(group, {}).get("hosts", ())
    }


@pytest.fixture(scope="session")
def relay(hosts: dict[str, dict[str, object]]) -> ScenarioRelay:
    """The relay."""
    return ScenarioRelay(str(hosts["relay"]["inventory_hostname"]), hosts["relay"])


@pytest.fixture(scope="session")
def laptop(hosts: dict[str, dict[str, object]]) -> Machine:
    """A managed client host with two instances, and a service for the whole home."""
    return _machine(hosts["laptop"])


@pytest.fixture(scope="session")
def desktop(hosts: dict[str, dict[str, object]]) -> Machine:
    """Another, with one."""
    return _machine(hosts["desktop"])


def _machine(values: dict[str, object]) -> Machine:
    instances = values["relay_client_instances"]
    assert isinstance(instances, list)
    names = [one.get("name") or Path(one["directory"]).name for one in instances]
    if values.get("relay_client_service"):
        names.append(str(values["relay_client_user"]))  # it works in the home directory
    return Machine(
        host=Host(str(values["inventory_hostname"])),
        person=str(values["relay_client_user"]),
        client=str(values["relay_client_name"]),
        instances=tuple(names),
        generation=int(str(values["opencode_generation"])),
        model_port=int(str(values["model_port"])),
    )


@pytest.fixture(scope="session")
def machines(hosts: dict[str, dict[str, object]]) -> list[Machine]:
    """Those that there are."""
    return [_machine(hosts[group]) for group in ("laptop", "desktop") if group in hosts]


@pytest.fixture
def fleet(relay: ScenarioRelay, machines: list[Machine]) -> dict[str, SeenRegistration]:
    """All instances that run as services, registered."""
    return all_registered(relay, machines)


@pytest.fixture(scope="session")
def known_hosts(relay: ScenarioRelay, machines: list[Machine]) -> None:
    """The relay's host key, where the tests' own ssh looks for it."""
    key = relay.output("cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    for machine in machines:
        machine.host.run("tee", KNOWN_HOSTS, stdin=f"[{relay.name}]:{relay.ssh_port} {key}\n")


@pytest.fixture
def guest(relay: ScenarioRelay, desktop: Machine, known_hosts: None) -> Attacker:
    """Whoever stole the key of the enrolled client `guest`."""
    return Attacker(desktop.host, relay, relay.tunnel_user, "guest")


@pytest.fixture
def stranger(relay: ScenarioRelay, desktop: Machine, known_hosts: None) -> Attacker:
    """Somebody with a key that nobody enrolled."""
    return Attacker(desktop.host, relay, relay.tunnel_user, "stranger")


@pytest.fixture
def ordinary(relay: ScenarioRelay, desktop: Machine, known_hosts: None) -> Attacker:
    """Somebody with an ordinary account on the relay: what is refused to the others works here."""
    return Attacker(desktop.host, relay, "ordinary", "ordinary")


@pytest.fixture(scope="session")
def removed() -> str:
    """The relay, made an ordinary machine again, and what that said; whoever asks for it comes last."""
    played = play("remove.yml")
    assert played.succeeded, played.said
    return played.said


@pytest.fixture(scope="session")
def guest_port(desktop: Machine) -> Iterator[int]:
    """A port on the guest's host where a real OpenCode answers."""
    command = ("opencode", "serve", "--hostname", "127.0.0.1", "--port", str(GUEST_PORT))
    with ExitStack() as stack:
        said = ""
        # OpenCode 1 ends, or hangs, where another one of the same person has its database just then.
        for _ in range(_STARTS):
            opencode = stack.enter_context(RunningProgram(desktop.host, *command, user=desktop.person))
            with suppress(AssertionError):
                eventually(partial(_listens_or_is_over, opencode), "the guest's OpenCode", within=60)
                if not opencode.is_over:
                    break
            said += "".join(opencode.lines) + opencode.errors
            opencode.signal("KILL")
            opencode.ended()
        else:
            raise AssertionError(f"the guest's OpenCode did not start {_STARTS} times: {said}")
        yield GUEST_PORT


def _listens_or_is_over(opencode: RunningProgram) -> bool:
    return opencode.is_over or f":{GUEST_PORT}" in "".join(opencode.lines)
