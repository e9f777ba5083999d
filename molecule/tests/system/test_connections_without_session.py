"""`ssh -N -R` runs no forced command. Such a connection listens unseen until it is ended, by either of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.hosts.hosts import RunningProgram
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.hosts.scenario import Attacker, ScenarioRelay

ENDS_WITHIN = 60.0
"""Seconds. Either does after 10, where the machine has no other work; nothing else ends it."""
DROP_IN = "/etc/ssh/sshd_config.d/00-opencode-relay.conf"


@pytest.fixture
def without_the_agent(relay: ScenarioRelay) -> Iterator[None]:
    """The agent is down."""
    units = ("opencode-relay-agent.socket", "opencode-relay-agent.service")
    relay.run("systemctl", "stop", *units)
    yield
    relay.run("systemctl", "start", *units)


@pytest.fixture
def without_sshds_own_means(relay: ScenarioRelay) -> Iterator[None]:
    """sshd does not look after connections without a session."""
    relay.run("sed", "-i.kept", "s/UnusedConnectionTimeout 10/UnusedConnectionTimeout none/", DROP_IN)
    relay.run("systemctl", "restart", "ssh.service")
    yield
    relay.run("mv", f"{DROP_IN}.kept", DROP_IN)
    relay.run("systemctl", "restart", "ssh.service")


def _ends_by_itself(relay: ScenarioRelay, guest: Attacker) -> None:
    port = relay.block("guest")[-1]
    with RunningProgram(guest.host, *guest.ssh_command("-N", "-R", f"127.0.0.1:{port}:127.0.0.1:9", to="")) as ssh:
        eventually(lambda: relay.listens(port), "it listens unseen")
        eventually(lambda: not relay.listens(port), "it is ended", within=ENDS_WITHIN)
        assert ssh.ended() == 255


@pytest.mark.usefixtures("without_the_agent")
def test_sshd_ends_it_when_the_agent_is_down(relay: ScenarioRelay, guest: Attacker) -> None:
    _ends_by_itself(relay, guest)


@pytest.mark.usefixtures("without_sshds_own_means")
def test_the_agent_ends_it_when_sshd_does_not(relay: ScenarioRelay, guest: Attacker) -> None:
    _ends_by_itself(relay, guest)
    relay.logs("ended a connection without a session")


def test_a_client_without_an_agent_is_told_so_and_listens_nowhere(
    relay: ScenarioRelay, guest: Attacker, without_the_agent: None
) -> None:
    port = relay.block("guest")[-1]
    with guest.session(forward=port, local_port=9) as session:
        assert session.hear("error")["code"] == "write-failed"
        session.ended()
    eventually(lambda: not relay.listens(port), "nothing listens", within=60)
