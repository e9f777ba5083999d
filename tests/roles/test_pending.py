"""A gateway that goes on with settings of before, as after a run that broke off, is restarted by the next run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.fake_systemctl import FakeSystemctl
from support.role_parts import RoleParts

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)

_PENDING = ("relay_gateway", "pending")
_RESTART = {
    "name": "Restart the gateway",
    "ansible.builtin.command": {"argv": ["sh", "-c", "{{ restart }}"]},
}


class Service:
    """The gateway's unit as the role writes it, and what systemd does at its start with what is written."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.etc = directory / "etc"
        self.unit = directory / "opencode-gateway.service"
        self.etc.mkdir()
        (self.etc / "gateway.json").write_text("{}")
        (directory / "bin").mkdir()
        self.systemctl = FakeSystemctl(directory / "bin")
        monkeypatch.setenv("PATH", str(directory / "bin"), prepend=":")
        self._parts = RoleParts(directory, "relay_common", "relay_gateway", handlers=[_RESTART])
        self._values = {
            "__relay_gateway_config_dir": str(self.etc),
            "__relay_gateway_unit_file": str(self.unit),
            "__relay_gateway_started": str(directory / "started"),
        }
        told = {"__uid": 5, "__gid": 5, "__stop_seconds": 15, "__relay_gateway_reference": "image"}
        self._parts.write("relay_gateway", "opencode-gateway.service.j2", self.unit, **self._values, **told)
        (self.start,) = re.findall(
            r"^ExecStartPre=-/bin/sh -c '(sha256sum .*)'$", self.unit.read_text(), re.MULTILINE
        )

    def is_restarted(self) -> bool:
        """Run the part of the role that asks; return whether it had the gateway restarted."""
        said = self._parts.play(_PENDING, **self._values, restart=self.start)
        return "RUNNING HANDLER [Restart the gateway]" in said


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A gateway that was started with what is written."""
    service = Service(tmp_path, monkeypatch)
    assert service.is_restarted()  # it did not run
    return service


@pytest.mark.parametrize("file", ["gateway.json", "client-secret"])
def test_it_is_restarted_once_when_a_run_broke_off_after_writing_its_settings(service: Service, file: str) -> None:
    assert not service.is_restarted()
    (service.etc / file).write_text("written, and the run broke off")
    assert service.is_restarted()
    assert not service.is_restarted()


def test_it_is_restarted_when_its_unit_is_another(service: Service) -> None:
    with service.unit.open("a") as unit:
        unit.write("# another image\n")
    assert service.is_restarted()


def test_it_is_restarted_when_systemd_started_it_anew_by_the_unit_of_before(service: Service) -> None:
    service.systemctl.needs_reload(is_so=True)
    assert service.is_restarted()
