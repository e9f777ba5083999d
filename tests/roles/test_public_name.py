"""Whether chat clients out there find the relay is told by what answers at its name."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from support.project.role_readmes import PROJECT
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


_CADDY = 'LISTEN 0 4096 {} *:* users:(("caddy",pid=7,fd=3)) uid:33 ino:1 sk:1 <->'


@pytest.mark.parametrize(
    ("listening", "free"),
    [
        ([], ["80", "443"]),
        (["*:80"], ["443"]),
        (["0.0.0.0:443", "*:80"], []),
        (["127.0.0.1:8790"], ["80", "443"]),
    ],
)
def test_it_answers_itself_only_where_caddy_does_not(tmp_path: Path, listening: list[str], free: list[str]) -> None:
    (task, *_) = yaml.safe_load((PROJECT / "roles/relay_gateway/tasks/public.yml").read_text())
    listeners = {"stdout_lines": [_CADDY.format(address) for address in listening]}
    written = tmp_path / "free"
    copy = {"ansible.builtin.copy": {"content": "{{ __free | to_json }}", "dest": str(written), "mode": "0600"}}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {**task["vars"], "__relay_gateway_listeners": listeners},
        "tasks": [copy],
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([play]))
    command = [Path(sys.executable).parent / "ansible-playbook", playbook]
    subprocess.run(command, capture_output=True, timeout=120, check=True, cwd=tmp_path)
    assert json.loads(written.read_text()) == free
