"""`opencode-relay backup` and `opencode-relay restore`. For root."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from opencode_common.files import read_regular, read_small_file, write_atomically, write_new
from opencode_relay.backup.archive import CLIENTS, GATEWAY, HOST_KEYS, MAX_BYTES, Archive
from opencode_relay.backup.host import Host, check_host_keys
from opencode_relay.clients import EnrolledMachines
from opencode_relay.enrolment import Enrolment, locked, require_root
from opencode_relay.errors import BackupError

if TYPE_CHECKING:
    from pathlib import Path

_MARK: Final = "restored.json"
"""In `etc`: which backup was put back last, `{"backup":"SHA-256","complete":true,"clients":"SHA-256"}`."""


def back_up(host: Host, target: Path) -> str:
    """Write a backup of this relay to a new file, or to standard output for `-`; return what it holds.

    Raises:
        BackupError, ConfigError: it cannot be read or written; nothing is left behind.
        EnrolmentError: another command is changing the clients.
    """
    require_root()
    files: dict[str, bytes] = {}
    with locked(host.etc):
        record = host.etc / "clients.json"
        try:
            files[CLIENTS] = read_regular(record)
            EnrolledMachines.parse(files[CLIENTS], record)
        except FileNotFoundError:
            raise BackupError(
                f"{record} is missing: nobody was enrolled here yet, so there is nothing to keep"
            ) from None
        files |= {HOST_KEYS + name: content for name, content in host.host_keys().items()}
        files |= {GATEWAY + name: content for name, content in host.gateway_files().items()}
    archive = Archive.of(files, hostname=socket.gethostname(), at=datetime.now(UTC))
    content = archive.to_bytes()
    Archive.parse(content, "the backup")  # what it could not be read back from is none
    _write(target, content)
    where = "standard output" if str(target) == "-" else target
    return (
        f"{where} holds {_summary(archive)}. Whoever has it can be this relay and log in as its people: "
        "keep it as you keep passwords"
    )


def describe(file: Path) -> str:
    """Return what is in a backup, every byte of which is checked. Raises `BackupError`."""
    archive = _read(file)
    rows = [
        f"  {member.name:<34} {member.owner + ':' + member.group:<16} {member.mode} {member.size:>10} bytes"
        for member in archive.manifest.members
    ]
    head = f"backup of {archive.manifest.hostname}, {archive.manifest.date}: {_summary(archive)}"
    return "\n".join([head, *rows])


@dataclass(frozen=True)
class Restored:
    """What a restore did: a line a part, and whether anything is other than before."""

    lines: tuple[str, ...]
    changed: bool

    def to_text(self) -> str:
        """Return it for a terminal; the last line is `changed` or `nothing to change`."""
        return "\n".join([*self.lines, "changed" if self.changed else "nothing to change"])


def restore(host: Host, file: Path, *, replace: bool) -> Restored:
    """Put a backup back on this host.

    `replace`: also over clients and people that this relay has by now.

    Raises:
        BackupError, ConfigError: it is refused, and nothing was changed; or it broke off, and can be run again.
        EnrolmentError: another command is changing the clients.
    """
    require_root()
    archive = _read(file)
    clients = EnrolledMachines.parse(archive.files[CLIENTS], f"clients.json in {file}").fitted_to(host.settings)
    host_keys, gateway = archive.part(HOST_KEYS), archive.part(GATEWAY)
    check_host_keys(host_keys)
    with locked(host.etc):
        mark = _Mark.read(host.etc)
        is_same = mark is not None and mark.backup == archive.digest
        if mark is not None and is_same and mark.complete and not replace:
            return Restored(
                ("this backup was put back here before; what has changed since stays as it is (else: --replace)",),
                changed=False,
            )
        enrolment = Enrolment(host.etc, host.settings, is_replaced=replace)
        now = _digest_of_clients(host.etc)
        # One that broke off goes on, unless others were enrolled since.
        if not replace and not (mark is not None and is_same and mark.clients == now):
            _refuse_where_in_use(host, enrolment, clients, has_gateway=bool(gateway))
        _Mark(archive.digest, complete=False, clients=now).write(host.etc)
        # What is enrolled comes last: with it laptops are let in.
        told = host.put_gateway_files(gateway) if gateway else []
        keys = host.put_host_keys(host_keys)
        outcome = enrolment.restore(clients)
        _Mark(archive.digest, complete=True, clients=_digest_of_clients(host.etc)).write(host.etc)
    kept_out = [client.name for client in clients.clients if client not in outcome.state.clients]
    return _report(told, keys, outcome.state if outcome.changed else None, kept_out)


def _report(gateway: list[str], keys: list[str], clients: EnrolledMachines | None, kept_out: list[str]) -> Restored:
    lines = []
    if gateway:
        lines.append(f"put back of the gateway: {', '.join(gateway)}")
    if keys:
        lines.append(f"put back of sshd: {', '.join(keys)}")
    if clients is not None:
        names = ", ".join(client.name for client in clients.clients) or "nobody"
        lines.append(f"put back of the relay: {names}; {len(clients.revoked)} keys stay revoked")
    changed = bool(lines)
    if kept_out:
        lines.append(f"left out, as their keys were revoked here since: {', '.join(kept_out)}")
    if changed:
        services = ["ssh"] * bool(keys) + ["opencode-gateway"] * bool(gateway)
        restart = f"systemctl restart {' '.join(services)} (as far as they run), then " if services else ""
        lines.append(f"next: {restart}run the playbook relay.yml")
    return Restored(tuple(lines), changed=changed)


def _refuse_where_in_use(host: Host, enrolment: Enrolment, clients: EnrolledMachines, *, has_gateway: bool) -> None:
    here = enrolment.state
    found = ""
    if here.clients and here != clients:
        found = f"{len(here.clients)} clients are enrolled on this relay ({here.clients[0].name}, …)"
    elif has_gateway and host.has_gateway_data():
        found = f"the gateway of this relay has data in {host.settings.gateway_data_dir}"
    if found:
        raise BackupError(
            f"{found}, and nothing was changed: make a backup of them first, and give --replace to put the other one "
            "in its place"
        )


@dataclass(frozen=True)
class _Mark:
    """Which backup was put back here, and whether all of it was."""

    backup: str
    complete: bool
    clients: str
    """SHA-256 of `clients.json` before it, or after it if it is complete."""

    @classmethod
    def read(cls, etc: Path) -> _Mark | None:
        try:
            told = json.loads(read_regular(etc / _MARK))
            return cls(str(told["backup"]), complete=told["complete"] is True, clients=str(told.get("clients", "")))
        except (OSError, ValueError, KeyError, TypeError):  # never, or it says nothing
            return None

    def write(self, etc: Path) -> None:
        content = json.dumps(asdict(self)).encode() + b"\n"
        write_atomically(etc / _MARK, content, mode=0o644, group=0)


def _digest_of_clients(etc: Path) -> str:
    try:
        return hashlib.sha256(read_regular(etc / "clients.json")).hexdigest()
    except OSError:  # nobody was enrolled yet, or something else stands there
        return ""


def _read(file: Path) -> Archive:
    try:
        content = read_small_file(file, MAX_BYTES)
    except OSError as error:
        raise BackupError(f"{file} cannot be read: {error.strerror}") from error
    archive = Archive.parse(content, file)
    if CLIENTS not in archive.files:
        raise BackupError(f"{file} is no backup of a relay that can be used: {CLIENTS} is missing in it")
    return archive


def _write(target: Path, content: bytes) -> None:
    if str(target) == "-":
        if sys.stdout.isatty():
            raise BackupError("a backup is nothing for a terminal: name a file, or send the output into a program")
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        write_new(target, content)
    except FileExistsError:
        raise BackupError(f"{target} is there already: name a new file") from None
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {os.strerror(error.errno or 0)}") from error


def _summary(archive: Archive) -> str:
    clients = EnrolledMachines.parse(archive.files[CLIENTS], CLIENTS)
    kinds = [name for name in archive.part(HOST_KEYS) if not name.endswith(".pub")]
    people = "the gateway's people and sessions" if archive.part(GATEWAY) else "no gateway"
    return (
        f"{len(clients.clients)} clients, {len(clients.revoked)} revoked keys, {len(kinds)} host keys, and {people}"
    )
