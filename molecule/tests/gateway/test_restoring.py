"""A backup of the relay, and a fresh host with other numbers of accounts that becomes the relay from it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from support.hosts.chain import CONNECT
from support.hosts.hosts import RunningProgram
from support.hosts.scenario import KNOWN_HOSTS, Attacker, ScenarioRelay, play

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.hosts.chain import ScenarioGateway
    from support.hosts.scenario import Machine

pytestmark = pytest.mark.timeout(1200)

_SSH_PORT = 22
_FROM_NOTHING_SECONDS = 900.0
"""For a run on a host that has nothing yet: two minutes, where the machine has no other work."""
_PERSON = ("keeper", "a horse that is remembered")
_ACCOUNTS = ("caddy", "driver", "registrar", "tunnels")


@dataclass(frozen=True)
class Spare:
    """The spare host, in an inventory of its own that makes it the relay."""

    relay: ScenarioRelay
    inventory: Path

    def play(self, **variables: object) -> tuple[bool, str]:
        """Run relay.yml there; return whether it succeeded, and what it said."""
        extra = ("--extra-vars", json.dumps(variables)) if variables else ()
        played = play("relay.yml", *extra, inventory=self.inventory, within=_FROM_NOTHING_SECONDS)
        return played.succeeded, played.said


@pytest.fixture(scope="module")
def spare(hosts: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Spare:
    """A host that no role has seen."""
    name = str(hosts["spare"]["inventory_hostname"])
    values = {**hosts["relay"], "relay_join_port": _SSH_PORT}
    del values["inventory_hostname"]
    file = tmp_path_factory.mktemp("inventory") / "hosts.json"
    file.write_text(json.dumps({"relay": {"hosts": {name: values}}}), encoding="utf-8")
    return Spare(ScenarioRelay(name, values), file)


@pytest.fixture
def web_server(spare: Spare) -> Iterator[None]:
    """Somebody else's, on port 80."""
    with RunningProgram(spare.relay, "python3", "-um", "http.server", "80") as server:
        server.wait_for(lambda line: "Serving" in line, "a web server")
        yield


@pytest.fixture
def small_disk(spare: Spare) -> Iterator[None]:
    """A file system of its own for the engine, on which there is no room for an image."""
    spare.relay.run("mount", "-t", "tmpfs", "-o", "size=50m", "small", "/var/lib/docker")
    yield
    spare.relay.run("umount", "/var/lib/docker")


@pytest.mark.parametrize(
    ("fault", "variables", "complaint"),
    [
        ("web_server", {}, "Something else listens there: 0.0.0.0:80"),
        ("small_disk", {}, "/var/lib/docker has 50 MB left, and"),
        (
            None,
            {"relay_tls": "auto", "relay_domain": "relay.invalid"},
            "relay_domain relay.invalid has no address yet",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_changed(
    request: pytest.FixtureRequest, spare: Spare, fault: str | None, variables: dict[str, object], complaint: str
) -> None:
    if fault:
        request.getfixturevalue(fault)
    succeeded, said = spare.play(**variables)
    assert not succeeded
    assert complaint in said
    assert "changed=0" in said
    assert not spare.relay.succeeds("test", "-e", "/etc/opencode-relay")


@pytest.fixture(scope="module")
def said(
    relay: ScenarioRelay, gateway: ScenarioGateway, spare: Spare, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """What the one run with the backup said."""
    gateway.administer("users", "add", _PERSON[0], stdin=f"{_PERSON[1]}\n")
    backup = tmp_path_factory.mktemp("backup") / "relay.backup"
    with backup.open("wb") as file:
        subprocess.run(relay.exec_command("opencode-relay", "backup", "-"), stdout=file, check=True, timeout=120)
    succeeded, said = spare.play(relay_restore=str(backup))
    assert succeeded, said
    return said


@pytest.fixture(scope="module")
def restored(spare: Spare, said: str) -> Spare:
    """The spare host, after it."""
    return spare


def test_the_rules_admit_the_accounts_of_this_host_and_not_their_numbers(
    relay: ScenarioRelay, gateway: ScenarioGateway, restored: Spare
) -> None:
    there, here = ({name: host.infra.user(name).uid for name in _ACCOUNTS} for host in (relay, restored.relay))
    # Else it shows nothing.
    assert set(here.values()) & set(there.values())
    assert all(here[name] != there[name] for name in _ACCOUNTS)
    for user in ("caddy", relay.gateway_user):
        assert restored.relay.python(CONNECT, str(gateway.port), user=user).returncode == 0, user
    for user in ("first", "second", relay.tunnel_user, relay.agent_user):
        refused = restored.relay.python(CONNECT, str(gateway.port), user=user)
        assert "Connection refused" in refused.stderr, user


def test_a_client_of_the_old_relay_is_welcome_by_its_key_and_finds_the_same_host_key(
    relay: ScenarioRelay, restored: Spare, desktop: Machine, known_hosts: None
) -> None:
    key = relay.output("cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    desktop.host.run("sh", "-c", 'cat >>"$1"', "sh", KNOWN_HOSTS, stdin=f"{restored.relay.name} {key}\n")
    guest = Attacker(desktop.host, restored.relay, restored.relay.tunnel_user, "guest")
    with guest.session() as session:
        session.hear("ready")
    assert restored.relay.block("guest") == relay.block("guest")


def test_the_people_of_the_gateway_are_there(restored: Spare) -> None:
    assert _PERSON[0] in restored.relay.output("opencode-gateway", "users", "list")


def test_the_run_ends_with_what_a_person_needs(said: str) -> None:
    assert "skipping:" not in said
    assert "ignoring" not in said
    end = said[said.rindex("PLAY [What comes next]") :]
    assert "guest: opencode-connected enroll --join ocr1:" in end
    assert (
        end.index("guest:")
        < end.index("then in the chat client: https://gateway.relay.test/mcp")
        < end.index("PLAY RECAP")
    )
    assert end.count("TASK [") == 4
    # The name still leads to the old relay.
    assert "dns: gateway.relay.test leads to" in end[end.index("TASK [Mend on the relay]") :]
