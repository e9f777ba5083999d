"""Instances that registered with a file in a directory and are reached on a loopback port of this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opencode_common.files import FileIdentity
from opencode_common.registration import (
    InvalidRegistration,
    Registration,
    parse_registration,
    read_registration_bytes,
)
from opencode_common.text import one_line
from opencode_fleet.transports.base import START_ONE, Appeared, Change, Departed, Endpoint, ScanDone, Transport
from opencode_fleet.transports.local_key import local_key_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opencode_fleet.settings import ServerSettings

log = logging.getLogger(__name__)

# One stat of the directory each time. Polling outlives a directory that is missing, replaced or on a mount that
# sends no notifications, and notices a rename almost at once; that is what a watch would give as well.
POLL_INTERVAL = 0.05
# A file system's clock ticks coarsely: a directory changed this recently may change again under the same time stamp.
SETTLING = 0.1
# Not every file is replaced atomically: an invalid file this young is read again soon.
YOUNG_FILE = 2.0
MAX_FILES = 10_000
MAX_INSTANCES = 1_000
REFUSALS_TO_PRUNE = 3
MAX_PROBLEMS = 5


UNSEEN = FileIdentity(0, 0, 0, 0, 0)
"""Of a file whose identity could not be learned."""


@dataclass(slots=True)
class KnownFile:
    """What was read from one version of a file, and of the key beside it."""

    identity: FileIdentity
    registration: Registration | None
    problem: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    refusals: int = 0
    first_refusal: float = 0.0


class LocalRelay(Transport):
    """Reads `{name}.json` files; `docs/contract.md` describes them."""

    def __init__(self, directory: Path, *, ports: range, discovery_interval: float) -> None:
        self._directory = directory
        self._shown = one_line(str(directory), 200)
        self._ports = ports
        self._interval = discovery_interval
        self._files: dict[str, KnownFile] = {}
        self._announced: dict[str, Endpoint] = {}
        self._directory_problem = ""
        self._is_missing = False
        self._is_flooded = False
        self._too_many = 0

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> LocalRelay:
        """Make the transport that `settings` describe."""
        return cls(settings.registry_dir, ports=settings.ports, discovery_interval=settings.discovery_interval)

    async def changes(self) -> AsyncIterator[Change]:
        """Yield the registered instances, then what changes. See `Transport.changes`."""
        scanned: object = None
        again = True
        next_full = 0.0
        first = True
        while True:
            now = time.monotonic()
            seen = self._directory_identity()
            if again or seen != scanned or now >= next_full:
                # In a thread: the directory may be huge or on a slow disk.
                files = await asyncio.to_thread(self._scan)
                changes = self._compare(files)
                for change in changes:
                    yield change
                scanned, again = seen, not self._settled(seen)
                next_full = time.monotonic() + self._interval
                if first:
                    first = False
                    yield ScanDone()
            await asyncio.sleep(POLL_INTERVAL)

    def report_refused(self, endpoint: Endpoint) -> None:
        """Count a refusal, and prune the file once it has been refused often and long enough, unchanged."""
        known = self._current(endpoint)
        if known is None:
            return
        now = time.monotonic()
        if known.refusals == 0:
            known.first_refusal = now
        known.refusals += 1
        if known.refusals >= REFUSALS_TO_PRUNE and now - known.first_refusal > self._interval:
            self._prune(endpoint.name, known)

    def report_alive(self, endpoint: Endpoint) -> None:
        """Forget the refusals so far."""
        known = self._current(endpoint)
        if known is not None:
            known.refusals = 0

    def absence(self) -> str:
        """See `Transport.absence`; names the directory, as whoever registers may look at another one."""
        if self._directory_problem:
            return self._directory_problem
        if self._is_missing:
            return (
                f"no instance is registered: {self._shown} does not exist; {START_ONE}, or correct RELAY_REGISTRY_DIR"
            )
        return f"no instance is registered in {self._shown}; {START_ONE}"

    def problems(self) -> list[str]:
        """See `Transport.problems`."""
        found = [self._directory_problem] if self._directory_problem else []
        if self._is_flooded:
            found.append(f"the registry directory has more than {MAX_FILES} files; the others are ignored")
        if self._too_many:
            found.append(f"{self._too_many} registrations beyond {MAX_INSTANCES} are ignored")
        bad = sorted((name, known.problem) for name, known in self._files.items() if known.problem)
        found += [f"ignored {one_line(name, 80)!r}: {problem}" for name, problem in bad[:MAX_PROBLEMS]]
        if len(bad) > MAX_PROBLEMS:
            found.append(f"ignored {len(bad) - MAX_PROBLEMS} more files that are no registrations")
        return found

    def _current(self, endpoint: Endpoint) -> KnownFile | None:
        if self._announced.get(endpoint.name) != endpoint:
            return None
        return self._files.get(f"{endpoint.name}.json")

    def _directory_identity(self) -> tuple[int, int, int] | None:
        try:
            status = self._directory.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def _settled(self, seen: tuple[int, int, int] | None) -> bool:
        wall = time.time()
        if seen is not None and abs(wall - seen[2] / 1e9) < SETTLING:
            return False
        return not any(
            known.problem and 0 <= wall - known.identity.modified_ns / 1e9 < YOUNG_FILE
            for known in self._files.values()
        )

    def _scan(self) -> dict[str, KnownFile]:
        """Read the directory; files that did not change since the last scan are not read again."""
        try:
            problem = _distrust(self._directory, self._shown)
            entries = [] if problem else self._list()
        except FileNotFoundError:
            # Nobody has registered yet.
            self._directory_problem, self._is_missing, self._is_flooded = "", True, False
            return {}
        except OSError as error:
            self._directory_problem, self._is_missing = _unreadable(self._shown, error), False
            # Not seeing is not the same as seeing nothing: keep what was there.
            return self._files
        self._directory_problem, self._is_missing, self._is_flooded = problem, False, len(entries) > MAX_FILES
        files: dict[str, KnownFile] = {}
        for name in entries[:MAX_FILES]:
            known = self._read(name)
            if known is not None:
                files[name] = known
        return files

    def _list(self) -> list[str]:
        with os.scandir(self._directory) as found:
            names = [entry.name for entry in found if entry.name.endswith(".json") and not entry.name.startswith(".")]
        # A flood of files must not push out those that work, nor may what is known to be bad push out new ones.
        return sorted(names, key=lambda name: (self._rank(name), name))

    def _rank(self, name: str) -> int:
        known = self._files.get(name)
        if known is None:
            return 1
        return 2 if known.registration is None else 0

    def _read(self, name: str) -> KnownFile | None:
        path = self._directory / name
        known = self._files.get(name)
        identity = UNSEEN
        try:
            status = path.lstat()
            identity = FileIdentity.of(status)
            if known is not None and known.identity == identity:
                return known
            if not stat.S_ISREG(status.st_mode):
                raise InvalidRegistration("not a regular file")
            registration = parse_registration(read_registration_bytes(path), name, self._ports)
        except FileNotFoundError:
            return None
        except InvalidRegistration as error:
            return KnownFile(identity, None, one_line(str(error), 120))
        except OSError as error:
            return KnownFile(identity, None, error.strerror or "cannot be read")
        # A relay's registrations are of other machines, whose guards are behind ssh.
        headers = {} if registration.client else local_key_headers(self._directory, registration.name)
        return KnownFile(identity, registration, headers=headers)

    def _compare(self, files: dict[str, KnownFile]) -> list[Change]:
        present: dict[str, Endpoint] = {}
        closed: set[str] = set()
        too_many = 0
        for known in files.values():
            registration = known.registration
            if registration is None:
                continue
            if registration.closed_at is not None:
                closed.add(registration.name)
            elif len(present) < MAX_INSTANCES:
                present[registration.name] = self._endpoint(registration, known)
            else:
                too_many += 1
        changes: list[Change] = [
            Departed(name, clean=name in closed) for name in self._announced.keys() - present.keys()
        ]
        changes += [Appeared(endpoint) for name, endpoint in present.items() if self._announced.get(name) != endpoint]
        self._files = files
        self._announced = present
        self._too_many = too_many
        return changes

    @staticmethod
    def _endpoint(registration: Registration, known: KnownFile) -> Endpoint:
        return Endpoint(
            name=registration.name,
            # 127.0.0.1, never localhost: on the other address family somebody else may answer.
            url=f"http://127.0.0.1:{registration.port}",
            hostname=registration.hostname,
            directory=registration.cwd,
            client=registration.client,
            revision=f"{registration.connected_at} {known.identity.inode} {known.identity.modified_ns}",
            headers=known.headers,
        )

    def _prune(self, name: str, known: KnownFile) -> None:
        path = self._directory / f"{name}.json"
        try:
            if FileIdentity.of(path.lstat()) == known.identity:
                path.unlink()
                log.info("pruned the registration of %r: its port refused %d checks in a row", name, known.refusals)
        except FileNotFoundError:
            pass
        except OSError as error:
            # A read-only mount is normal; the instance is shown as offline all the same.
            log.debug("not pruning %r: %s", name, error.strerror)


def _distrust(directory: Path, shown: str) -> str:
    """Say why what lies in the directory may be anybody's; empty if only its owner, whom we trust, can write there.

    The owner may be another user (on a provisioned relay the agent's), but not where anybody can make a directory.
    """
    status = directory.stat()
    if status.st_mode & stat.S_IWOTH:
        return f"the registry directory is not trusted, as every user can write to it: chmod o-w {shown}"
    if status.st_uid not in {0, os.geteuid()} and directory.resolve().parent.stat().st_mode & stat.S_IWOTH:
        return (
            f"the registry directory {shown} is not trusted: it was made by user {status.st_uid} in a place where "
            "everybody can make one; set RELAY_REGISTRY_DIR to another"
        )
    return ""


def _unreadable(shown: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        step = (
            "on a provisioned relay run opencode-mcp as the gateway's user (`sudo -u opencode-gateway`), "
            "elsewhere check its owner and mode"
        )
    else:
        step = "mend it or correct RELAY_REGISTRY_DIR"
    return f"the registry directory {shown} cannot be read: {error.strerror}; {step}"
