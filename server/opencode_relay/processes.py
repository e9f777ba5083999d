"""Connections of the tunnel user, seen as processes: whose they are, and how they are ended.

sshd keeps a connection in a process of the user who logged in, below one of root's, and starts below it what the
key's line in authorized_keys commands. Nothing else ever runs below it, so that the arguments of that, the client and
the fingerprint, are sshd's own word on which key opened the connection.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet
    from types import TracebackType

_SSHD: Final = frozenset({"sshd", "sshd-session"})
"""What the process is called; the second since OpenSSH 9.8."""
_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_POLL_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 2.0
"""For a connection that runs nothing yet to begin its session."""
_END_SECONDS: Final = 4.0
_TERM_SECONDS: Final = 1.0
"""SIGTERM to SIGKILL. sshd ends at once, if it runs at all."""


class Identity(NamedTuple):
    """A client and the fingerprint of the key that it logged in with."""

    client: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    uid: int
    """The real one."""
    name: str

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """Return the process, or None if it is gone."""
        try:
            descriptor = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fields = dict(line.split(b":\t", 1) for line in os.read(descriptor, 2048).splitlines() if b":\t" in line)
        except OSError:  # gone between the two
            return None
        finally:
            os.close(descriptor)
        name = fields[b"Name"].decode(errors="replace")
        return cls(pid, int(fields[b"PPid"]), int(fields[b"Uid"].split()[0]), name)


class SshConnection:
    """One sshd process of the tunnel user, held so that its number cannot come to mean another."""

    def __init__(self, process: Process, handle: int) -> None:
        self.pid = process.pid
        self.monitor = process.parent
        """Root's process above it, by which sshd's own log lines go."""
        self._handle = handle

    @classmethod
    def open(cls, pid: int, uid: int) -> Self | None:
        """Return the connection of user `uid` that process `pid` keeps; None if it keeps none (any more)."""
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return None
        # Only now, as the handle pins what is looked at.
        process = Process.read(pid)
        above = Process.read(process.parent) if process and process.uid == uid and process.name in _SSHD else None
        if process and above and above.uid == 0 and above.name in _SSHD:
            return cls(process, handle)
        os.close(handle)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Have sshd end the connection, which frees its ports; nothing happens if it has."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._handle)


def connections(uid: int, skip: AbstractSet[int] = frozenset()) -> set[int]:
    """Return the processes that keep connections of user `uid`; those in `skip` are not looked at."""
    return {
        process.pid
        for process in _processes(skip, _SSHD)
        if process.uid == uid and _is_monitor(Process.read(process.parent))
    }


def identities(uid: int) -> dict[int, Identity | None]:
    """Return each connection of user `uid` with who it is; None for one that runs nothing (`ssh -N`)."""
    found: dict[int, Identity | None] = dict.fromkeys(connections(uid))
    for process in _processes():
        if process.uid == uid and process.parent in found:
            found[process.parent] = _identity(process.pid) or found[process.parent]
    return found


def without_session(uid: int) -> set[int]:
    """Return the connections of user `uid` that run nothing."""
    return {pid for pid, identity in identities(uid).items() if identity is None}


def end_connections(uid: int, doomed: Callable[[], set[int]], *, within: float) -> set[int]:
    """End what `doomed` returns until it returns nothing; return what has ended. Needs root.

    `within`: seconds. SIGTERM first; SIGKILL for what ignores it for a second.
    """
    since: dict[int, float] = {}
    deadline = time.monotonic() + within
    while pids := doomed():
        now = time.monotonic()
        for pid in pids:
            is_stubborn = now - since.setdefault(pid, now) > _TERM_SECONDS
            connection = SshConnection.open(pid, uid)
            if connection is not None:
                with connection:
                    connection.signal(signal.SIGKILL if is_stubborn else signal.SIGTERM)
        if now > deadline:
            return since.keys() - pids
        time.sleep(_POLL_SECONDS)
    return set(since)


def end_without_session(uid: int) -> set[int]:
    """End the connections of user `uid` that run nothing and begin nothing in two seconds; return what has ended.

    For when a key is shut out: whose such a connection is, nobody said, and it may be that key's.
    """
    suspects = without_session(uid)
    if not suspects:
        return set()
    time.sleep(_PATIENCE_SECONDS)
    return end_connections(uid, lambda: suspects & without_session(uid), within=_END_SECONDS)


def _is_monitor(process: Process | None) -> bool:
    return process is not None and process.uid == 0 and process.name in _SSHD


def _identity(pid: int) -> Identity | None:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    # Split at blanks too: for a moment it is the shell that was given the whole command as one argument.
    words = arguments.decode(errors="replace").replace("\0", " ").split()
    for client, fingerprint in itertools.pairwise(words):
        if _FINGERPRINT.fullmatch(fingerprint):
            return Identity(client, fingerprint)
    return None


def _processes(skip: AbstractSet[int] = frozenset(), names: AbstractSet[str] = frozenset()) -> Iterator[Process]:
    """Yield all processes but those in `skip`; with `names`, only those that are called so."""
    for entry in os.listdir("/proc"):  # noqa: PTH208 # names are all that is needed, of thousands
        if not entry.isdigit() or int(entry) in skip or (names and _name(entry) not in names):
            continue
        if process := Process.read(int(entry)):
            yield process


def _name(pid: str) -> str:
    """Return what a process is called: much less work for the kernel than its whole status."""
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:  # noqa: PTH123 # thousands in a row
            return file.read().decode(errors="replace").rstrip("\n")
    except OSError:
        return ""
