"""What the agent and systemd say to each other."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

import pytest

from opencode_relay.errors import RelayConfigError
from opencode_relay.systemd import JournalFormatter, listening_socket, notify, watchdog

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["a path", "an abstract name"])
def test_a_notice_reaches_the_socket_that_systemd_names(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(tmp_path / "notify") if kind == "a path" else f"@opencode-relay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        watchdog()  # nobody asked for it
        monkeypatch.setenv("WATCHDOG_USEC", "10000000")
        watchdog()
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"WATCHDOG=1"]


def test_without_systemd_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


@pytest.mark.parametrize(("pid", "count"), [("", ""), ("1", "1"), ("own", "2")])
def test_another_processs_sockets_or_several_are_not_taken(
    pid: str, count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid == "own" else pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    with pytest.raises(RelayConfigError, match=r"systemctl start opencode-relay-agent\.socket"):
        listening_socket()


@pytest.mark.parametrize(
    ("level", "priority"), [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3), ("CRITICAL", 3)]
)
def test_each_line_in_the_journal_has_its_priority(level: str, priority: int) -> None:
    number = logging.getLevelNamesMapping()[level]
    record = logging.LogRecord("agent", number, "", 0, "first\nsecond", None, None)
    assert JournalFormatter().format(record) == f"<{priority}>first\n<{priority}>second"
