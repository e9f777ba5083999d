"""The relay program looks whether the tunnel carries, with whatever the relay has."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.line.conftest import registration
from client.line.relay_program import BASICS, OTHER_ID, Program, bin_with, names
from opencode_connected.line import protocol
from support.waiting import eventually

if TYPE_CHECKING:
    from support.opencodes.fake_health import FakeHealth


TOOLS = {
    "curl": ["curl"],
    "GNU wget": ["wget"],
    "python3": [sys.executable + ":python3"],
    "perl": ["perl"],
    "nc": ["nc"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tunnel_is_probed_with_whatever_the_relay_has(
    tool: str, tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, path=bin_with(tmp_path / "bin", TOOLS[tool])) as program:
        for status, health in ((200, "ok"), (401, "ok"), (500, "failed"), (302, "failed"), (0, "failed")):
            opencode.status = status
            probed = program.ask(protocol.probe(opencode.port))
            assert (status, probed["health"]) == (status, health)


def test_a_tool_that_crashes_or_lacks_options_is_passed_over(
    tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    path = Path(bin_with(tmp_path / "bin", [sys.executable + ":python3"]))
    for tool, script in (("curl", "kill -SEGV $$"), ("wget", "echo 'Usage: wget [-q] URL' >&2; exit 1")):
        (path / tool).write_text(f"#!/bin/sh\n{script}\n")
        (path / tool).chmod(0o755)

    with Program(registry_dir, path=str(path)) as program:
        assert program.ask(protocol.probe(opencode.port))["health"] == "ok"


def test_a_relay_without_any_tool_registers_unverified(
    tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    with Program(registry_dir, path=bin_with(tmp_path / "bin", [])) as program:
        assert program.register(registration(opencode))["health"] == "unverified"
        assert program.ask(protocol.ping(1))["health"] == "unverified"


def test_a_relay_that_is_nothing_but_busybox_will_do(
    tmp_path: Path, registry_dir: Path, opencode: FakeHealth
) -> None:
    path = bin_with(tmp_path / "bin", ["busybox:nc"], [f"busybox:{tool}" for tool in BASICS])
    with Program(registry_dir, "busybox sh", path=path) as old, Program(registry_dir, "busybox sh", path=path) as new:
        assert old.register(registration(opencode))["health"] == "ok"
        assert new.register(registration(opencode), OTHER_ID)["code"] == "name-taken"
        assert new.register(registration(opencode))["health"] == "ok"
        assert old.ask(protocol.QUERY)["file"]["name"] == "laptop-api"
        assert old.receive() == {"type": "end"}
        # Its ps knows no start times, so the older session is not ended by a pid that may be anybody's: it gives way.
        old.send(protocol.ping(1))
        old.process.wait()
        shutil.rmtree(registry_dir)
        assert new.ask(protocol.ping(1)) == {"type": "pong", "n": 1, "health": "ok"}
        new.send(protocol.BYE)
        assert new.process.wait() == 0
        eventually(lambda: not names(registry_dir), "the note is gone")


def test_a_tunnel_that_does_not_carry_is_not_registered(shell: str, registry_dir: Path, opencode: FakeHealth) -> None:
    opencode.status = 0
    with Program(registry_dir, shell) as program:
        assert program.register(registration(opencode))["code"] == "not-carrying"
        assert not registry_dir.exists()
        opencode.status = 401
        assert program.register(registration(opencode))["type"] == "registered"


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_port_that_listens_beyond_loopback_is_refused(shell: str, address: str, registry_dir: Path) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener, Program(registry_dir, shell) as program:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]

        assert program.ask(protocol.probe(port))["code"] == "exposed"


def test_a_port_on_both_loopback_addresses_is_not_refused(registry_dir: Path, opencode: FakeHealth) -> None:
    with socket.socket(socket.AF_INET6) as listener, Program(registry_dir) as program:
        listener.bind(("::1", opencode.port))
        listener.listen()

        assert program.ask(protocol.probe(opencode.port))["health"] == "ok"
