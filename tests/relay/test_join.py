"""The join line that the relay prints is the contract's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from opencode_relay.clients import EnrolledMachine
from opencode_relay.errors import EnrolmentError
from opencode_relay.join import join_line, read_host_key

CONTRACT = Path(__file__).parents[1] / "contract"
GOLDEN: list[dict[str, Any]] = [
    json.loads(line) for line in (CONTRACT / "golden" / "join.jsonl").read_text().splitlines()
]
PLAIN: dict[str, Any] = GOLDEN[0]["fields"]


def line(fields: dict[str, Any]) -> str:
    first, _, last = fields["ports"].partition("-")
    client = EnrolledMachine(name=fields["client"], first=int(first), last=int(last), key=PLAIN["hostKey"])
    return join_line(
        client, host=fields["host"], port=fields["port"], user=fields["user"], host_key=fields["hostKey"]
    )


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["fields"]["host"])
def test_the_relay_prints_the_golden_line(golden: dict[str, Any]) -> None:
    assert line(golden["fields"]) == golden["line"]


@pytest.mark.parametrize(
    "host", ["", "-oProxyCommand=x", "a b", "user@vm", "vm\n", "fe80::1%eth0", "[::1]", "x" * 254]
)
def test_a_host_that_a_launcher_would_refuse_is_refused_here(host: str) -> None:
    with pytest.raises(EnrolmentError, match="--host"):
        line({**PLAIN, "host": host})


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(EnrolmentError, match="--port"):
        line({**PLAIN, "port": port})


@pytest.mark.parametrize("content", [b"", b"\xff", b"ssh-ed25519 AAAA root@vm"])
def test_a_host_key_that_is_none_is_refused_with_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "host.pub"
    path.write_bytes(content)
    with pytest.raises(EnrolmentError, match=r"the host key .*host\.pub"):
        read_host_key(path)


@pytest.mark.parametrize("kind", ["a device", "a FIFO", "a directory"])
def test_a_host_key_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = {"a device": Path("/dev/zero"), "a FIFO": tmp_path / "fifo", "a directory": tmp_path}[kind]
    if kind == "a FIFO":
        os.mkfifo(path)
    with pytest.raises(EnrolmentError, match="cannot be read"):
        read_host_key(path)
