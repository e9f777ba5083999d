"""The backup's file: a tar that begins with `manifest.json`, which has owner, mode and SHA-256 of each member.

    {"format":1,"hostname":"relay","date":"2026-11-30T10:00:00Z","members":[{"name":"relay/clients.json",
     "owner":"root","group":"agent","mode":"0640","size":512,"sha256":"…"},…]}

Owners are roles (`root`, `agent`, `gateway`): which account that is, and its number, is each host's own. Where a
member belongs and whose it is says the table `KINDS` and never the file; what is in neither is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opencode_common.validation import describe
from opencode_relay.backup.tar import pack, unpack
from opencode_relay.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

CLIENTS: Final = "relay/clients.json"
HOST_KEYS: Final = "ssh/"
GATEWAY: Final = "gateway/"
MAX_BYTES: Final = 512 * 1024 * 1024
"""Of the whole file. A gateway that 100 people use for years keeps some 10 MB."""
_MANIFEST: Final = "manifest.json"
_MAX_MANIFEST: Final = 64 * 1024

Role = Literal["root", "agent", "gateway"]


@dataclass(frozen=True)
class Kind:
    """What may be in a backup: names, whose it is, its mode, and how many bytes it has at most."""

    names: re.Pattern[str]
    owner: Role
    group: Role
    mode: int
    limit: int


KINDS: Final = (
    Kind(re.compile(r"relay/clients\.json"), "root", "agent", 0o640, 64 * 1024 * 1024),
    Kind(re.compile(r"ssh/ssh_host_[a-z0-9]{1,20}_key"), "root", "root", 0o600, 64 * 1024),
    Kind(re.compile(r"ssh/ssh_host_[a-z0-9]{1,20}_key\.pub"), "root", "root", 0o644, 64 * 1024),
    Kind(re.compile(r"gateway/gateway\.sqlite3"), "gateway", "gateway", 0o600, MAX_BYTES),
    Kind(re.compile(r"gateway/(users|notify)\.json"), "gateway", "gateway", 0o600, 64 * 1024 * 1024),
    Kind(re.compile(r"gateway/[a-z]{1,20}\.key"), "gateway", "gateway", 0o600, 64 * 1024),
)


def kind_of(name: str) -> Kind | None:
    """Return what the member `name` is; None if it belongs into no backup."""
    return next((kind for kind in KINDS if kind.names.fullmatch(name)), None)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Record):
    """One file, as the manifest has it."""

    name: str
    owner: Role
    group: Role
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")]
    size: Annotated[int, Field(ge=0, strict=True)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, name: str, content: bytes) -> Self:
        """Return the entry of a file. `name` is one of `KINDS`."""
        kind = kind_of(name)
        if kind is None:
            raise ValueError(name)
        return cls(
            name=name,
            owner=kind.owner,
            group=kind.group,
            mode=f"{kind.mode:04o}",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )


class Manifest(_Record):
    """What the backup says about itself."""

    format: Literal[1]
    hostname: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,255}$")]
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Archive:
    """A backup in memory. `files`: content by member's name."""

    manifest: Manifest
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, files: Mapping[str, bytes], *, hostname: str, at: datetime) -> Self:
        """Make one of these files. `at`: UTC."""
        members = tuple(Member.of(name, content) for name, content in files.items())
        date = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        name = re.sub(r"[^A-Za-z0-9._-]", "-", hostname)[:255] or "unknown"
        return cls(Manifest(format=1, hostname=name, date=date, members=members), files)

    @classmethod
    def parse(cls, content: bytes, source: object) -> Self:
        """Read one, and check every byte of it; `source` names it in the error.

        Raises:
            BackupError: it is no backup, is damaged, or holds what belongs into none.
        """
        try:
            files = unpack(content)
            manifest = cls._manifest(files.pop(_MANIFEST, b""))
            for member in manifest.members:
                _check(member, files)
            if stray := files.keys() - {member.name for member in manifest.members}:
                raise ValueError(f"it holds {min(stray)[:80]!a}, which belongs into no backup")
        except ValueError as error:
            raise BackupError(f"{source} is no backup of a relay that can be used: {error}") from None
        return cls(manifest, files)

    @staticmethod
    def _manifest(content: bytes) -> Manifest:
        if not content or len(content) > _MAX_MANIFEST:
            raise ValueError(f"it has no {_MANIFEST}")
        try:
            return Manifest.model_validate_json(content)
        except ValidationError as error:
            raise ValueError(f"{_MANIFEST}: {describe(error)}") from None

    @property
    def digest(self) -> str:
        """Tells this backup, and all that is in it, from every other."""
        return hashlib.sha256(self._manifest_bytes).hexdigest()

    @property
    def _manifest_bytes(self) -> bytes:
        return json.dumps(self.manifest.model_dump(), indent=1).encode() + b"\n"

    def to_bytes(self) -> bytes:
        """Return the tar."""
        return pack({_MANIFEST: self._manifest_bytes, **self.files})

    def part(self, prefix: str) -> dict[str, bytes]:
        """Return the files below `prefix`, by their names there."""
        return {name.removeprefix(prefix): data for name, data in self.files.items() if name.startswith(prefix)}


def _check(member: Member, files: Mapping[str, bytes]) -> None:
    kind = kind_of(member.name)
    if kind is None:
        raise ValueError(f"it holds {member.name[:80]!a}, which belongs into no backup")
    if member.name not in files:
        raise ValueError(f"{member.name} is missing in it")
    if member.size > kind.limit:
        raise ValueError(f"{member.name} is too large")
    if member != Member.of(member.name, files[member.name]):
        raise ValueError(f"{member.name} is not as its {_MANIFEST} says: it was changed, or is damaged")
