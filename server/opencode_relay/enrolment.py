"""Changing who is enrolled: the two files, and the live sessions of those who are not any more. For root."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_relay.clients import Clients
from opencode_relay.errors import ConfigError, EnrolmentError
from opencode_relay.files import write_atomically
from opencode_relay.processes import Identity, end_connections, identities
from opencode_relay.settings import Settings, account

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opencode_relay.keys import PublicKey

_CUT_SECONDS: Final = 4.0
"""For live sessions to be gone."""
_YOUNG_SECONDS: Final = 2.0
"""A connection that runs nothing yet may be about to."""
_SESSION_PROGRAM: Final = Path(__file__).with_name("session.py")


@dataclass(frozen=True)
class Outcome:
    """What a change did, or would do. Names; `cut` counts connections."""

    state: Clients
    changed: bool
    added: list[str]
    removed: list[str]
    rekeyed: list[str]
    cut: int

    def to_dict(self) -> dict[str, object]:
        """Return what the command prints as JSON."""
        clients = [
            {"name": client.name, "first": client.first, "last": client.last, "fingerprint": client.fingerprint}
            for client in self.state.clients
        ]
        return {
            "changed": self.changed,
            "added": self.added,
            "removed": self.removed,
            "rekeyed": self.rekeyed,
            "cut": self.cut,
            "clients": clients,
        }


class Enrolment:
    """The files in `etc`. Nobody else may change them meanwhile: use it inside `locked`."""

    def __init__(self, etc: Path, settings: Settings) -> None:
        self._settings = settings
        self._clients_file = etc / "clients.json"
        self._keys_file = etc / "authorized_keys"
        self._tunnel = account(settings.tunnel_user)
        self._agent = account(settings.agent_user)
        self.state = self._read()

    def apply(self, wanted: Sequence[tuple[str, PublicKey]], *, check: bool) -> Outcome:
        """Enrol exactly these clients. `check`: only say what would happen.

        Raises:
            EnrolmentError, ConfigError: nothing was changed.
        """
        return self._become(self.state.with_clients(wanted, self._settings), check=check)

    def revoke(self, name: str) -> Outcome:
        """Remove a client and refuse its key from now on. Raises `EnrolmentError` if there is none of that name."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._become(self.state.without(name, at=now), check=False)

    def unrevoke(self, fingerprint: str) -> Outcome:
        """Let a revoked key be enrolled again. Raises `EnrolmentError` if it was not revoked."""
        return self._become(self.state.with_key_allowed(fingerprint), check=False)

    def _become(self, after: Clients, *, check: bool) -> Outcome:
        before = self.state
        files = [
            # In this order: the agent knows a client before sshd lets it in, and forgets it before it is cut off.
            (self._clients_file, after.to_json(), self._agent.pw_gid),
            (self._keys_file, self._authorized_keys(after), self._tunnel.pw_gid),
        ]
        stale = [file for file in files if not _is_current(*file)]
        if not check:
            for path, content, group in stale:
                write_atomically(path, content, mode=0o640, group=group)
            self.state = after
        old = {client.name: client.key for client in before.clients}
        new = {client.name: client.key for client in after.clients}
        removed = [name for name in old if name not in new]
        rekeyed = [name for name, key in new.items() if old.get(name, key) != key]
        cut = self._cut(after, has_gone=bool(removed or rekeyed), check=check)
        return Outcome(
            state=after,
            changed=bool(stale or cut),
            added=[name for name in new if name not in old],
            removed=removed,
            rekeyed=rekeyed,
            cut=cut,
        )

    def _cut(self, state: Clients, *, has_gone: bool, check: bool) -> int:
        """End the sessions of keys that are not enrolled; return how many.

        Whose a connection without a session is, nobody said: when somebody is gone, all of those end that are not
        just about to begin one.
        """
        uid = self._tunnel.pw_uid
        allowed = {Identity(client.name, client.fingerprint) for client in state.clients}

        def doomed() -> set[int]:
            return {
                pid
                for pid, identity in identities(uid).items()
                if (identity not in allowed if identity else has_gone and _age(pid) > _YOUNG_SECONDS)
            }

        return len(doomed()) if check else end_connections(uid, doomed, within=_CUT_SECONDS)

    def _authorized_keys(self, state: Clients) -> bytes:
        lines = ["# Written by `opencode-relay apply`; what is changed here is lost."]
        for client in state.clients:
            command = f"exec {sys.executable} -ISE {_SESSION_PROGRAM} {client.name} {client.fingerprint} "
            options = [
                "restrict",
                "port-forwarding",
                *(f'permitlisten="127.0.0.1:{port}"' for port in client.ports),
                f'command="{command}{self._settings.socket}"',
            ]
            lines.append(f"{','.join(options)} {client.key} {client.name}")
        return "\n".join(lines).encode() + b"\n"

    def _read(self) -> Clients:
        try:
            return Clients.parse(self._clients_file.read_bytes(), self._clients_file)
        except FileNotFoundError:
            return Clients.none_yet(self._settings)
        except OSError as error:
            raise ConfigError(f"{self._clients_file} cannot be read: {error.strerror}") from error


@contextmanager
def locked(etc: Path) -> Iterator[None]:
    """Keep other commands from changing the files meanwhile.

    Raises:
        EnrolmentError: one is at it, or one is not root.
    """
    if os.geteuid() != 0:
        raise EnrolmentError("only root can do this: sudo opencode-relay …")
    descriptor = os.open(etc, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise EnrolmentError(
            "another opencode-relay command is changing the clients: try again when it is done"
        ) from None
    finally:
        os.close(descriptor)


def _is_current(path: Path, content: bytes, group: int) -> bool:
    try:
        status = path.lstat()
        return (status.st_uid, status.st_gid, status.st_mode) == (0, group, 0o100640) and path.read_bytes() == content
    except OSError:
        return False


def _age(pid: int) -> float:
    """Return for how many seconds a process has run; 0 if it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text("ascii").split()[0])
    except OSError:
        return 0.0
    return uptime - int(after_name[19]) / os.sysconf("SC_CLK_TCK")
