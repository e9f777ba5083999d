"""Whether chat clients out there find the relay is told by what answers at its name."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.role_readmes import PROJECT
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES = PROJECT / "roles/relay_gateway/files"


def _reach(name: str, *ports: str) -> dict[str, str]:
    command = [sys.executable, str(_FILES / "reach.py"), name, "word", *ports]
    found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)
    return found


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def relay() -> Iterator[int]:
    """A relay that answers for a moment, as the role has it answer; its port."""
    port = _free_port()
    with subprocess.Popen([sys.executable, _FILES / "listen.py", "word", str(port)]) as answering:
        try:
            eventually(lambda: _listens(port), "it answers")
            yield port
        finally:
            answering.kill()


@pytest.fixture
def stranger() -> Iterator[int]:
    """Something else; its port. It says nothing, and takes no notice."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_the_relay_itself_is_found(relay: int) -> None:
    assert _reach("127.0.0.1", str(relay)) == {f"127.0.0.1 {relay}": "here"}


def test_another_machine_is_told_from_it(relay: int, stranger: int) -> None:
    found = _reach("127.0.0.1", str(relay), str(stranger))
    assert found == {f"127.0.0.1 {relay}": "here", f"127.0.0.1 {stranger}": "elsewhere"}


def test_a_port_that_nobody_answers_on_is_silent(relay: int) -> None:
    closed = _free_port()
    found = _reach("127.0.0.1", str(relay), str(closed))
    assert found[f"127.0.0.1 {closed}"] == "silent"


def test_what_serves_there_already_need_not_say_the_word(stranger: int) -> None:
    assert _reach("127.0.0.1", f"{stranger}=") == {f"127.0.0.1 {stranger}": "here"}


def test_a_name_without_addresses_has_no_outcome() -> None:
    assert _reach("relay.invalid", "443") == {}
