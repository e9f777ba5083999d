"""Changing who is enrolled: the two files, and the live sessions of those who are not any more. For root."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opencode_common.files import read_regular, write_atomically
from opencode_relay.clients import EnrolledMachines
from opencode_relay.errors import EnrolmentError, RelayConfigError
from opencode_relay.files import blank_lines
from opencode_relay.processes import Identity, end_connections, end_without_session, identities
from opencode_relay.settings import RelaySettings, account

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from opencode_relay.keys import PublicKey

_CUT_SECONDS: Final = 4.0
"""For live sessions to be gone."""
_POLL_SECONDS: Final = 0.05
_OUT: Final = "The old key of {} cannot log in any more, and its sessions are cut; nothing else is done or recorded. "
_NOT_OUT: Final = "The old key of {} STILL LOGS IN; only its sessions of now are cut. "
_SESSION_PROGRAM: Final = Path(__file__).with_name("session.py")


@dataclass(frozen=True)
class EnrolmentOutcome:
    """What a change did, or would do. Names; `cut` counts connections."""

    state: EnrolledMachines
    changed: bool
    added: list[str]
    removed: list[str]
    rekeyed: list[str]
    cut: int

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON is made of."""
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

    def to_text(self) -> str:
        """Return it for a terminal; the last line is `changed` or `nothing to change`."""
        told = {"added": self.added, "removed": self.removed, "another key": self.rekeyed}
        lines = [f"{what}: {', '.join(names)}" for what, names in told.items() if names]
        if self.cut:
            lines.append(f"connections cut: {self.cut}")
        return "\n".join([*lines, "changed" if self.changed else "nothing to change"])


class Incomplete(EnrolmentError):
    """A change was begun and not completed; the text says how far it came."""


class Enrolment:
    """The files in `etc`. Nobody else may change them meanwhile: use it inside `locked`.

    Args:
        is_replaced: a record that is damaged counts as none, as another takes its place.

    Raises:
        ConfigError: the record is damaged or cannot be read, or an account is missing.
    """

    def __init__(self, etc: Path, settings: RelaySettings, *, is_replaced: bool = False) -> None:
        self._settings = settings
        self._clients_file = etc / "clients.json"
        self._keys_file = etc / "authorized_keys"
        self._tunnel = account(settings.tunnel_user)
        self._agent = account(settings.agent_user)
        self.is_recorded = True
        """Whether the state file is there: without it nobody was enrolled yet, or it was lost."""
        try:
            self.state = self._read()
        except RelayConfigError:
            if not is_replaced:
                raise
            self.state = EnrolledMachines.none_yet(settings)

    def apply(self, wanted: Sequence[tuple[str, PublicKey]], *, check: bool) -> EnrolmentOutcome:
        """Enrol exactly these clients. `check`: only say what would happen.

        Raises:
            EnrolmentError, ConfigError: nothing was changed.
        """
        return self._become(self.state.with_clients(wanted, self._settings), check=check)

    def revoke(self, name: str) -> EnrolmentOutcome:
        """Remove a client and refuse its key from now on. Raises `EnrolmentError` if there is none of that name."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._become(self.state.without(name, at=now), check=False)

    def restore(self, state: EnrolledMachines) -> EnrolmentOutcome:
        """Become what a backup holds, whatever is enrolled here; keys that were revoked here stay so.

        Raises `RelayConfigError` where its ports do not fit.
        """
        return self._become(state.fitted_to(self._settings).keeping_out(self.state.revoked), check=False)

    def unrevoke(self, fingerprint: str) -> EnrolmentOutcome:
        """Let a revoked key be enrolled again. Raises `EnrolmentError` if it was not revoked."""
        return self._become(self.state.with_key_allowed(fingerprint), check=False)

    def _become(self, after: EnrolledMachines, *, check: bool) -> EnrolmentOutcome:
        old = {client.name: client.key for client in self.state.clients}
        new = {client.name: client.key for client in after.clients}
        removed = [name for name in old if name not in new]
        rekeyed = [name for name, key in new.items() if old.get(name, key) != key]
        clients = (self._clients_file, after.to_json(), self._agent.pw_gid)
        keys = (self._keys_file, self._authorized_keys(after), self._tunnel.pw_gid)
        # sshd's first where somebody goes: if the second cannot be written, the key is out, and the command can be
        # run again. Else the agent's first, so that it knows whom sshd lets in.
        files = [keys, clients] if removed or rekeyed else [clients, keys]
        stale = [file for file in files if not _is_current(*file)]
        self.state = after
        doomed = self._strangers()
        if not check:
            failure = self._write(stale, gone=[*removed, *rekeyed])
            doomed |= self._cut(has_gone=bool(removed or rekeyed))  # the agent may have been quicker with some
            if failure:
                raise failure
        return EnrolmentOutcome(
            state=after,
            changed=bool(stale or doomed),
            added=[name for name in new if name not in old],
            removed=removed,
            rekeyed=rekeyed,
            cut=len(doomed),
        )

    def _write(self, files: Iterable[tuple[Path, bytes, int]], gone: Sequence[str]) -> Incomplete | None:
        """Write them in order, up to one that cannot be; return why that is. `gone`: whose keys must get out."""
        for path, content, group in files:
            try:
                write_atomically(path, content, mode=0o640, group=group)
            except OSError as error:
                done = ""
                if gone:
                    is_out = path != self._keys_file or self._blank_out()
                    done = shut_out_words(", ".join(gone), is_out=is_out)
                return Incomplete(
                    f"{path} cannot be written: {error.strerror}. {done}"
                    "Mend that and run this again: it is not complete"
                )
        return None

    def _blank_out(self) -> bool:
        """Take the keys that must go out of sshd's file where no other can be written; return whether it went."""
        stay = tuple(f" {client.key} {client.name}".encode() for client in self.state.clients)
        try:
            blank_lines(self._keys_file, lambda line: not line.startswith(b"#") and not line.endswith(stay))
        except OSError:
            return False
        return True

    def _cut(self, *, has_gone: bool) -> set[int]:
        """End the sessions of keys that are not enrolled; return which."""
        uid = self._tunnel.pw_uid
        cut = end_connections(uid, self._strangers, within=_CUT_SECONDS)
        return cut | end_without_session(uid) if has_gone else cut

    def _strangers(self) -> set[int]:
        allowed = {Identity(client.name, client.fingerprint) for client in self.state.clients}
        return {
            pid for pid, identity in identities(self._tunnel.pw_uid).items() if identity and identity not in allowed
        }

    def _authorized_keys(self, state: EnrolledMachines) -> bytes:
        lines = ["# Written by `opencode-relay apply`; what is changed here is lost."]
        for client in state.clients:
            who = [client.name, client.fingerprint]
            session = [sys.executable, "-ISE", str(_SESSION_PROGRAM), *who, str(self._settings.socket)]
            options = [
                "restrict",
                "port-forwarding",
                # Nowhere, should sshd's configuration ever allow the other direction.
                'permitopen="nowhere.invalid:1"',
                *(f'permitlisten="127.0.0.1:{port}"' for port in client.ports),
                f'command="exec {shlex.join(session)}"',
            ]
            lines.append(f"{','.join(options)} {client.key} {client.name}")
        return "\n".join(lines).encode() + b"\n"

    def _read(self) -> EnrolledMachines:
        try:
            return EnrolledMachines.parse(read_regular(self._clients_file), self._clients_file)
        except FileNotFoundError:
            self.is_recorded = False
            return EnrolledMachines.none_yet(self._settings)
        except OSError as error:
            raise RelayConfigError(f"{self._clients_file} cannot be read: {error.strerror}; try as root") from error


def shut_out_words(names: str, *, is_out: bool) -> str:
    """Return the sentence on how far a change came that could not be completed, a blank at its end."""
    return (_OUT if is_out else _NOT_OUT).format(names)


def require_root() -> None:
    """Raise `EnrolmentError` for anybody but root."""
    if os.geteuid() != 0:
        raise EnrolmentError("only root can do this: sudo opencode-relay …")


@contextmanager
def locked(etc: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Keep other commands from changing the files meanwhile. `patience`: seconds for another to be done.

    Raises:
        EnrolmentError: one is at it, or one is not root.
    """
    require_root()
    descriptor = os.open(etc, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, time.monotonic() + patience)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise EnrolmentError(
                    "another opencode-relay command is changing the clients: try again when it is done"
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _is_current(path: Path, content: bytes, group: int) -> bool:
    try:
        status = path.lstat()
        return (status.st_uid, status.st_gid, status.st_mode) == (0, group, 0o100640) and read_regular(
            path
        ) == content
    except OSError:
        return False
