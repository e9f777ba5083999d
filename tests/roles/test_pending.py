"""A service that runs on with what was written before, as after a run that broke off, is restarted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from support.hosts.fake_systemctl import FakeSystemctl
from support.hosts.role_parts import RoleParts

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)


class Kind(NamedTuple):
    """A service of the relay, and what of its role says where its parts are."""

    role: str
    title: str
    template: str
    files: tuple[str, ...]
    """What it is started with, beside its unit."""
    places: dict[str, str]
    """The role's variables for them, below the directory of the test."""
    told: dict[str, object] = {}  # noqa: RUF012 # one for all, never changed


GATEWAY = Kind(
    "relay_gateway",
    "Restart the gateway",
    "opencode-gateway.service.j2",
    ("etc/gateway.json", "etc/client-secret"),
    {
        "__relay_gateway_config_dir": "etc",
        "__relay_gateway_unit_file": "unit.service",
        "__relay_gateway_started": "started",
    },
    {"__uid": 5, "__gid": 5, "__stop_seconds": 15, "__relay_gateway_reference": "image"},
)
AGENT = Kind(
    "relay_agent",
    "Restart the agent",
    "opencode-relay-agent.service.j2",
    ("etc/relay.json", "etc/installed"),
    {
        "__relay_settings_file": "etc/relay.json",
        "__relay_agent_installed": "etc/installed",
        "__relay_agent_unit_file": "unit.service",
        "__relay_agent_started": "started",
    },
)


class Service:
    """A unit as its role writes it, and what systemd does at its start with what is written."""

    def __init__(self, kind: Kind, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unit = directory / "unit.service"
        self.files = [directory / name for name in kind.files]
        (directory / "etc").mkdir()
        for file in self.files:
            file.write_text("{}")
        (directory / "bin").mkdir()
        self.systemctl = FakeSystemctl(directory / "bin")
        monkeypatch.setenv("PATH", str(directory / "bin"), prepend=":")
        self._kind = kind
        restart = {"name": kind.title, "ansible.builtin.command": {"argv": ["sh", "-c", "{{ restart }}"]}}
        self._parts = RoleParts(directory, "relay_common", kind.role, handlers=[restart])
        self._values = {name: str(directory / place) for name, place in kind.places.items()}
        self._parts.write(kind.role, kind.template, self.unit, **self._values, **kind.told)
        (self.start,) = re.findall(
            r"^ExecStartPre=-/bin/sh -c '(sha256sum .*)'$", self.unit.read_text(), re.MULTILINE
        )

    def is_restarted(self) -> bool:
        """Run the part of the role that asks; return whether it had the service restarted."""
        said = self._parts.play((self._kind.role, "pending"), **self._values, restart=self.start)
        return f"RUNNING HANDLER [{self._kind.title}]" in said


@pytest.fixture(params=[GATEWAY, AGENT], ids=lambda kind: kind.role)
def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service that was started with what is written."""
    service = Service(request.param, tmp_path, monkeypatch)
    assert service.is_restarted()  # it did not run
    return service


def test_it_is_restarted_once_when_a_run_broke_off_after_writing_what_it_starts_with(service: Service) -> None:
    assert not service.is_restarted()
    for file in service.files:
        file.write_text("written, and the run broke off")
        assert service.is_restarted(), file
    assert not service.is_restarted()


def test_it_is_restarted_when_its_unit_is_another(service: Service) -> None:
    with service.unit.open("a") as unit:
        unit.write("# another\n")
    assert service.is_restarted()


def test_it_is_restarted_when_systemd_started_it_anew_by_the_unit_of_before(service: Service) -> None:
    service.systemctl.needs_reload(is_so=True)
    assert service.is_restarted()
