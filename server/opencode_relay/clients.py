"""Who is enrolled, and on which ports: the state file `clients.json` and how it changes. No file is touched here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from opencode_common.validation import describe
from opencode_relay.errors import EnrolmentError, RelayConfigError
from opencode_relay.keys import PublicKey, parse_key
from opencode_relay.names import NAME, check_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opencode_relay.settings import RelaySettings


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, extra="forbid")


class Block(_Record):
    """The ports of one client, enrolled or not any more. They never change."""

    name: str
    first: int
    last: int

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if not NAME.fullmatch(self.name) or not 0 < self.first <= self.last <= 65535:
            raise ValueError("a block has a client's name and its first and last port")
        return self

    @property
    def ports(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1)


class EnrolledMachine(Block):
    """One enrolled client. `key` is kind and base64."""

    key: str

    @field_validator("key")
    @classmethod
    def _without_comment(cls, key: str) -> str:
        try:
            return str(parse_key(key))
        except EnrolmentError as error:
            raise ValueError(f"the key {error}") from None

    @property
    def fingerprint(self) -> str:
        """Of its key, as ssh shows it."""
        return _public_key(self.key).fingerprint


class Revoked(_Record):
    """A key that must not come back. `at`: ISO 8601, UTC."""

    name: str
    fingerprint: str
    at: str


class EnrolledMachines(_Record):
    """All that the relay remembers about clients."""

    first_port: int
    """Where the first block began."""
    block_size: int
    clients: tuple[EnrolledMachine, ...] = ()
    """By name."""
    retired: tuple[Block, ...] = ()
    """Blocks of removed clients, the longest unused first."""
    revoked: tuple[Revoked, ...] = ()

    @classmethod
    def none_yet(cls, settings: RelaySettings) -> Self:
        """Return the state of a relay that enrolled nobody."""
        return cls(first_port=settings.ports.start, block_size=settings.block_size)

    @classmethod
    def parse(cls, content: bytes, source: object) -> Self:
        """Read the state file; `source` names it in the error.

        Raises:
            ConfigError: it is damaged.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise RelayConfigError(
                f"{source} is damaged ({describe(error)}): correct it, or put a backup back: "
                "opencode-relay restore FILE --replace"
            ) from None

    def to_json(self) -> bytes:
        """Return the content of the state file, made to be read by people too."""
        return json.dumps(self.model_dump(by_alias=True), indent=1).encode() + b"\n"

    def get(self, name: str) -> EnrolledMachine:
        """Return the client of exactly this name.

        Raises:
            EnrolmentError: there is none.
        """
        for client in self.clients:
            if client.name == name:
                return client
        raise EnrolmentError(f"no client {name!a} is enrolled: `opencode-relay clients` lists them")

    def fitted_to(self, settings: RelaySettings) -> Self:
        """Return the state under these settings.

        Raises:
            ConfigError: a block of an enrolled client would move or lie outside.
        """
        low, size = settings.ports.start, settings.block_size
        if not self.clients and (self.first_port, self.block_size) != (low, size):
            return self.model_copy(update={"first_port": low, "block_size": size, "retired": ()})
        if (self.first_port, self.block_size) != (low, size):
            raise RelayConfigError(
                f"the ports of {len(self.clients)} enrolled clients would move: they were given out from "
                f"{self.first_port} in blocks of {self.block_size}, the settings say {low} and {size}; "
                "set them back, or first apply an empty list of clients"
            )
        outside = [client.name for client in self.clients if client.last not in settings.ports]
        if outside:
            raise RelayConfigError(
                f"the ports of {outside[0]} lie beyond {settings.port_range}: extend the range, or remove that client"
            )
        kept = tuple(block for block in self.retired if block.last in settings.ports)
        return self.model_copy(update={"retired": kept})

    def with_clients(self, wanted: Sequence[tuple[str, PublicKey]], settings: RelaySettings) -> Self:
        """Return the state with exactly these clients enrolled; who stays keeps the block.

        Raises:
            EnrolmentError: a name or key is not allowed, or there is no room for all.
            ConfigError: see `fitted_to`.
        """
        check_names([name for name, _ in wanted], [client.name for client in self.clients])
        self._check_keys(wanted)
        state = self.fitted_to(settings)
        names = {name for name, _ in wanted}
        stay = [client for client in state.clients if client.name in names]
        gone = [_block(client) for client in state.clients if client.name not in names]
        blocks = _Blocks(settings, stay, [*state.retired, *gone])
        # Who had a block gets it before anybody new is given one.
        known = {block.name.lower() for block in (*stay, *blocks.retired)}
        by_age = sorted(wanted, key=lambda pair: pair[0].lower() not in known)
        clients = [
            EnrolledMachine(name=name, first=block.start, last=block.stop - 1, key=str(key))
            for name, key in by_age
            for block in [blocks.take(name)]
        ]
        clients.sort(key=lambda client: client.name.lower())
        return state.model_copy(update={"clients": tuple(clients), "retired": tuple(blocks.retired)})

    def without(self, name: str, *, at: str) -> Self:
        """Return the state with the client `name` removed and its key revoked.

        Raises:
            EnrolmentError: there is no such client.
        """
        client = self.get(name)
        revoked = Revoked(name=name, fingerprint=client.fingerprint, at=at)
        return self.model_copy(
            update={
                "clients": tuple(other for other in self.clients if other is not client),
                "retired": (*self.retired, _block(client)),
                "revoked": (*self.revoked, revoked),
            }
        )

    def keeping_out(self, revoked: Sequence[Revoked]) -> Self:
        """Return the state with these keys revoked too, and whoever has one of them removed."""
        known = {one.fingerprint for one in self.revoked}
        out = {one.fingerprint for one in revoked}
        return self.model_copy(
            update={
                "clients": tuple(client for client in self.clients if client.fingerprint not in out),
                "retired": (*self.retired, *(_block(client) for client in self.clients if client.fingerprint in out)),
                "revoked": (*self.revoked, *(one for one in revoked if one.fingerprint not in known)),
            }
        )

    def with_key_allowed(self, key: str) -> Self:
        """Return the state with this key no longer revoked.

        `key`: its fingerprint, or the name of a client that has no other revoked key.

        Raises:
            EnrolmentError: it was not revoked, or the client had several.
        """
        meant = {revoked.fingerprint for revoked in self.revoked if key in (revoked.fingerprint, revoked.name)}
        if not meant:
            raise EnrolmentError(f"no key {key!a} is revoked: `opencode-relay clients` lists those that are")
        if len(meant) > 1:
            raise EnrolmentError(
                f"{len(meant)} keys of {key} are revoked: give the fingerprint of the one that is meant; "
                "`opencode-relay clients` lists them"
            )
        kept = tuple(revoked for revoked in self.revoked if revoked.fingerprint not in meant)
        return self.model_copy(update={"revoked": kept})

    def _check_keys(self, wanted: Iterable[tuple[str, PublicKey]]) -> None:
        revoked = {entry.fingerprint: entry for entry in self.revoked}
        owners: dict[str, str] = {}
        for name, key in wanted:
            fingerprint = key.fingerprint
            if entry := revoked.get(fingerprint):
                raise EnrolmentError(
                    f"the key of client {name} was revoked (as {entry.name}'s, {entry.at}): make a new one on the "
                    f"client, or, if it was a mistake: opencode-relay unrevoke {fingerprint}"
                )
            other = owners.setdefault(fingerprint, name)
            if other != name:
                raise EnrolmentError(f"clients {other} and {name} have the same key: each client needs its own")


class _Blocks:
    """Gives out blocks: one's own of old, else one that was never used, else the longest unused."""

    def __init__(self, settings: RelaySettings, used: Iterable[Block], retired: Iterable[Block]) -> None:
        self._settings = settings
        self._own = {block.name: block for block in used}
        self.retired = list(retired)
        taken = {block.first for block in (*self._own.values(), *self.retired)}
        ports, size = settings.ports, settings.block_size
        self._never_used = (
            range(first, first + size)
            for first in range(ports.start, ports.stop - size + 1, size)
            if first not in taken
        )

    def take(self, name: str) -> range:
        if own := self._own.get(name):
            return own.ports
        for block in self.retired:
            if block.name.lower() == name.lower():
                self.retired.remove(block)
                return block.ports
        never_used = next(self._never_used, None)
        if never_used is not None:
            return never_used
        if self.retired:
            return self.retired.pop(0).ports
        raise EnrolmentError(
            f"no ports are left for client {name}: {self._settings.port_range} holds "
            f"{len(self._settings.ports) // self._settings.block_size} clients of {self._settings.block_size} ports; "
            "extend the range"
        )


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    key: str


class _WantedList(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    clients: list[_Wanted]


def parse_wanted(content: bytes) -> list[tuple[str, PublicKey]]:
    """Read `{"clients":[{"name":…,"key":…},…]}`.

    Raises:
        EnrolmentError: it is of another shape, or a key is not taken.
    """
    try:
        wanted = _WantedList.model_validate_json(content).clients
    except ValidationError as error:
        raise EnrolmentError(f"the list of clients is wrong: {_describe(error)}") from None
    pairs = []
    for client in wanted:
        try:
            pairs.append((client.name, parse_key(client.key.strip())))
        except EnrolmentError as error:
            raise EnrolmentError(
                f"client {client.name[:40]!a}: the key {error}. Copy the whole line that `opencode-connected enroll` "
                "prints there"
            ) from None
    return pairs


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    match first["type"], first["loc"]:
        case "string_type", ("clients", int(index), str(field)):
            # YAML makes a number or a truth value of such a word.
            return f"the {field} of entry {index + 1}, {str(first['input'])[:40]!a}, is no text: quote it"
    return describe(error)


def _public_key(text: str) -> PublicKey:
    kind, blob = text.split(" ")
    return PublicKey(kind, blob)


def _block(client: EnrolledMachine) -> Block:
    return Block(name=client.name, first=client.first, last=client.last)
