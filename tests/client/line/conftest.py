"""What the tests of the line share: a relay, and an OpenCode of which only the health matters."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opencode_connected.line import protocol
from opencode_connected.line.command import LineSettings
from opencode_connected.registration import OwnRegistration
from support.line.sshd import Sshd
from support.opencodes.fake_health import FakeHealth

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTANCE_ID = "0123456789abcdef0123456789abcdef"
SHELLS = ("dash", "bash --posix", "busybox sh")
"""What `sh` may be on a relay."""


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """One of them."""
    return str(request.param)


@pytest.fixture
def opencode() -> Iterator[FakeHealth]:
    """A stand-in for OpenCode."""
    with FakeHealth() as fake:
        yield fake


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A relay that tests share: it keeps running, and they leave no session behind."""
    with Sshd(tmp_path_factory.mktemp("relay") / "it's a relay") as sshd:
        yield sshd


@pytest.fixture
def settings(relay: Sshd, opencode: FakeHealth, registry_dir: Path) -> LineSettings:
    """A line through the shared relay."""
    return line_settings(relay, opencode, registry_dir)


@pytest.fixture
def lasting_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a goodbye's note stay until there is a file `.read` beside it: half a second may pass unseen."""
    program = protocol.program

    def patient(registry_dir: str, provisioned_mark: str | None = None) -> bytes:
        text = program(registry_dir, provisioned_mark)
        assert b"nap 0.5" in text
        return text.replace(b"nap 0.5", b'until [ -e "$dir/.read" ]; do nap 0.1; done')

    monkeypatch.setattr(protocol, "program", patient)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pings often, so that tests need not wait."""
    monkeypatch.setattr("opencode_connected.line.keeper._PING_SECONDS", 0.2)
    monkeypatch.setattr("opencode_connected.line.keeper._REGISTER_AGAIN_SECONDS", 0.2)


def line_settings(
    relay: Sshd, opencode: FakeHealth, registry_dir: Path | str, *, instance_id: str = INSTANCE_ID
) -> LineSettings:
    return LineSettings(relay.ssh_command, str(registry_dir), (), opencode.port, instance_id)


def fake_relay(settings: LineSettings, what: str) -> LineSettings:
    """Return `settings` for a relay that is none, and does `what` (see `fake_relay.py`)."""
    program = Path(__file__).parent / "fake_relay.py"
    return replace(settings, ssh_command=shlex.join([sys.executable, str(program), what]))


def registration(opencode: FakeHealth, name: str = "laptop-api") -> OwnRegistration:
    return OwnRegistration(
        name=name,
        hostname="laptop",
        port=opencode.port,
        local_port=opencode.port,
        cwd='/home/ann/it\'s "mine" & ünïcode',
        connected_at="2026-11-24T16:00:00Z",
    )


def make_key(path: Path) -> Path:
    """Make a key that no relay knows."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path
