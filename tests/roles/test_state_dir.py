"""The directory of the journal, as the roles make, keep and remove it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from support.hosts.role_parts import RoleParts
from support.line.sshd import unix_user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
    pytest.mark.timeout(180),
]

_LOOK, _MAKE, _KEEP = ("relay_common", "host"), ("relay_registry", "state"), ("relay_registry", "keep")


class Relay:
    """A relay of which there is no more than that directory and its account."""

    def __init__(self, directory: Path, user: str) -> None:
        self.state = directory / "around" / "state"
        self.journal = self.state / "journal.sqlite3"
        self.parts = RoleParts(directory, "relay_common", "relay_registry")
        self.values = {
            "relay_state_dir": str(self.state),
            "relay_gateway_user": user,
            "relay_registry_dir": str(directory / "registrations"),
            "relay_install_dir": str(directory / "venv"),
            "__relay_config_dir": str(directory / "etc"),
        }
        self.user = user

    def provision(self) -> str:
        """Make what there is; return what was said."""
        return self.parts.play(_LOOK, _MAKE, **self.values)

    def remove(self, **variables: object) -> None:
        """Remove it as the playbook remove.yml does."""
        self.parts.play(_KEEP, **self.values, **variables)

    def run_server(self) -> None:
        """Have a server keep something."""
        self.journal.write_text("kept")
        self.journal.chmod(0o600)
        owner = self.state.stat()
        os.chown(self.journal, owner.st_uid, owner.st_gid)


def _owner(path: Path) -> tuple[str, str, int]:
    return path.owner(), path.group(), stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with unix_user("false", comment="opencode-relay, gateway") as user:
        yield Relay(tmp_path, user)


def test_it_is_the_gateways_alone_and_a_second_run_changes_nothing(relay: Relay) -> None:
    relay.provision()
    assert _owner(relay.state) == (relay.user, relay.user, 0o700)
    assert _owner(relay.state.parent) == ("root", "root", 0o755)
    relay.run_server()
    assert "changed=0" in relay.provision()


def test_an_existing_one_that_others_may_read_is_closed(relay: Relay) -> None:
    relay.provision()
    relay.state.chmod(0o755)
    relay.provision()
    assert _owner(relay.state) == (relay.user, relay.user, 0o700)


def test_a_removal_keeps_it_for_root_and_the_next_relay_goes_on_with_it(relay: Relay) -> None:
    relay.provision()
    relay.run_server()
    relay.remove()
    assert _owner(relay.state) == ("root", "root", 0o700)
    assert relay.journal.read_text() == "kept"
    # As after an account of another number.
    os.chown(relay.journal, 0, 0)
    relay.provision()
    assert _owner(relay.state) == (relay.user, relay.user, 0o700)
    assert _owner(relay.journal) == (relay.user, relay.user, 0o600)


def test_a_purge_removes_it(relay: Relay) -> None:
    relay.provision()
    relay.run_server()
    relay.remove(relay_gateway_purge="true")
    assert not relay.state.exists()
    relay.remove(relay_gateway_purge="true")


def test_a_directory_that_holds_something_else_is_refused_and_left_alone(relay: Relay) -> None:
    relay.state.mkdir(parents=True)
    (relay.state / "precious").touch()
    refused = relay.parts.try_to_play(_LOOK, _MAKE, **relay.values)
    assert refused.returncode != 0
    assert f"relay_state_dir {relay.state} holds something that is not of these roles" in refused.stdout
    assert _owner(relay.state)[0] == "root"


@pytest.mark.parametrize(
    ("inner", "outer"), [("relay_state_dir", "relay_registry_dir"), ("relay_install_dir", "relay_state_dir")]
)
def test_directories_inside_each_other_are_refused(relay: Relay, inner: str, outer: str) -> None:
    values = {**relay.values, inner: f"{relay.values[outer]}/inner"}
    refused = relay.parts.try_to_play(_LOOK, **values)
    assert refused.returncode != 0
    assert f"{inner} is '{values[inner]}'. It must not lie inside another directory" in refused.stdout
