"""Who may log in with a password: `users.json`, written by commands and read by the service whenever it changes.

{"ann": {"password": "$argon2id$…", "totp": "BASE32" or null, "capabilities": ["observe", "approve", "drive"],
         "disabled": false}}

A file that is damaged, or that other users of the host may read, lets nobody in: an older version could hold somebody
who was removed since.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final

import pyotp
from argon2 import Type, extract_parameters
from argon2.exceptions import InvalidHashError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from opencode_common.files import read_regular, write_atomically
from opencode_common.validation import describe
from opencode_gateway.capabilities import CAPABILITIES, Capability
from opencode_gateway.errors import CommandRefused, ConfigError
from opencode_gateway.people.directory import Person

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)
MAX_NAME: Final = 64
_SHARED: Final = stat.S_IRWXO | stat.S_IWGRP
"""What no mode of the file may have: anything for other users, and writing for its group."""


def _argon2id(encoded: str) -> str:
    try:
        if extract_parameters(encoded).type is Type.ID:
            return encoded
    except InvalidHashError:
        pass
    raise ValueError("must be an argon2id hash, as `sudo opencode-gateway users` writes it")


def _secret(base32: str) -> str:
    try:
        pyotp.TOTP(base32).at(0)
    except ValueError:
        raise ValueError("must be base32, as `sudo opencode-gateway users` writes it") from None
    return base32


def _ordered(capabilities: frozenset[Capability]) -> tuple[Capability, ...]:
    return tuple(each for each in CAPABILITIES if each in capabilities)


_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@-]*$", max_length=MAX_NAME)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: Annotated[str, Field(max_length=512), AfterValidator(_argon2id)]
    totp: Annotated[str, Field(min_length=16, max_length=128), AfterValidator(_secret)] | None = None
    capabilities: Annotated[frozenset[Capability], Field(min_length=1)]
    disabled: bool = False


_NAME: Final = TypeAdapter(_Name)
_FILE: Final = TypeAdapter(dict[_Name, _Entry])


@dataclass(frozen=True)
class User:
    """A person, as the file has them at the moment."""

    name: str
    password_hash: str = field(repr=False)
    totp_secret: str | None = field(repr=False)
    """Base32; None: logs in with the password alone."""
    capabilities: tuple[Capability, ...]
    """What a token of theirs can be granted at most."""
    disabled: bool

    @property
    def person(self) -> Person:
        """What a directory says of them while they are not disabled."""
        return Person(self.name, self.name, self.capabilities, f"{self.password_hash} {self.totp_secret}")


def known_as(typed: str) -> str:
    """Return the name that somebody means who typed this: phones begin words with a capital."""
    return typed.strip().lower()


class Users:
    """The file at `path`. A missing one holds nobody. It may be asked from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[tuple[int, ...] | None, Mapping[str, User], str] = (None, MappingProxyType({}), "")
        """The file's version, who is in it, and what is wrong with it: exchanged whole, as others may be reading."""
        self._logged = ""

    def load(self) -> Mapping[str, User]:
        """Return everybody by name, also the disabled, reading the file if it changed.

        Raises:
            ConfigError: the file is open to others, cannot be read, or is wrong. It is logged once.
        """
        version = self._version()
        seen, users, wrong = self._seen
        if version is None or version != seen:
            users, wrong = MappingProxyType({}), ""
            try:
                users = MappingProxyType({name: _user(name, entry) for name, entry in self._read().items()})
            except ConfigError as error:
                wrong = str(error)
            if wrong != self._logged:
                self._logged = wrong
                log.error("nobody can log in: %s", wrong) if wrong else log.info("%s is good again", self.path)
            self._seen = version, users, wrong
        if wrong:
            raise ConfigError(wrong)
        return users

    def find(self, login: str) -> Person | None:
        """See `Directory`: somebody who is disabled may not come in."""
        user = self.load().get(login)
        return None if user is None or user.disabled else user.person

    def knows(self, login: str) -> bool:
        """See `Directory`."""
        return login in self.load()

    def add(self, name: str, password_hash: str, capabilities: Iterable[Capability]) -> None:
        """Add somebody. Raises `CommandRefused` for a name that is taken or not of the right form, `ConfigError`."""
        try:
            _NAME.validate_python(name)
        except ValidationError:
            raise CommandRefused(
                f"{name[:MAX_NAME]!r} cannot be a user's name: take lower-case letters, digits, `.`, `_`, `-` and "
                f"`@`, at most {MAX_NAME}, and a letter or digit first"
            ) from None
        with self._changing() as people:
            if name in people:
                raise CommandRefused(
                    f"{name} is a user already: choose another name, or set a new password for {name}"
                )
            people[name] = _entry(password=password_hash, capabilities=frozenset(capabilities))

    def remove(self, name: str) -> None:
        """Forget somebody. What they were granted is revoked elsewhere. Raises `CommandRefused`, `ConfigError`."""
        with self._changing() as people:
            _known(people, name)
            del people[name]

    def set_password(self, name: str, password_hash: str) -> None:
        """Replace a password. Raises `CommandRefused`, `ConfigError`."""
        self._change(name, password=password_hash)

    def set_totp(self, name: str, secret: str | None) -> None:
        """Demand one-time codes from now on, or with None no longer. Raises `CommandRefused`, `ConfigError`."""
        self._change(name, totp=secret)

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """Let somebody log in no more, or again. Raises `CommandRefused`, `ConfigError`."""
        self._change(name, disabled=disabled)

    def set_capabilities(self, name: str, capabilities: Iterable[Capability]) -> None:
        """Change what somebody can grant from now on. Raises `CommandRefused`, `ConfigError`."""
        self._change(name, capabilities=frozenset(capabilities))

    def replace_hash(self, name: str, old: str, new: str) -> None:
        """Write the same password's hash anew, unless it was changed meanwhile.

        Raises `CommandRefused`, `ConfigError`.
        """
        with self._changing() as people:
            if name in people and people[name].password == old:
                people[name] = _entry(**{**dict(people[name]), "password": new})

    def _change(self, name: str, **changed: object) -> None:
        with self._changing() as people:
            people[name] = _entry(**{**dict(_known(people, name)), **changed})

    @contextmanager
    def _changing(self) -> Iterator[dict[str, _Entry]]:
        """Give what is in the file, and write it afterwards. One process at a time; readers are not held up."""
        try:
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CommandRefused(f"{self.path.parent} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)  # until it is closed
            people = self._read()
            yield people
            content = {name: entry.model_dump(mode="json") for name, entry in people.items()}
            for entry in content.values():
                entry["capabilities"] = _ordered(entry["capabilities"])
            try:
                write_atomically(self.path.resolve(), (json.dumps(content, indent=2) + "\n").encode(), mode=0o600)
            except OSError as error:
                raise CommandRefused(f"{self.path} cannot be written: {error.strerror}") from error
        finally:
            os.close(directory)

    def _version(self) -> tuple[int, ...] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        # When its mode changed counts too: that may be what it could not be read for.
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def _read(self) -> dict[str, _Entry]:
        try:
            if self.path.stat().st_mode & _SHARED:
                raise ConfigError(f"{self.path} must be closed to other users: `sudo chmod 600 {self.path}`")
            return _FILE.validate_json(read_regular(self.path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise ConfigError(f"{self.path}: {describe(error)}") from None


def _user(name: str, entry: _Entry) -> User:
    return User(name, entry.password, entry.totp, _ordered(entry.capabilities), entry.disabled)


def _entry(**values: object) -> _Entry:
    try:
        return _Entry.model_validate(values)
    except ValidationError as error:
        raise CommandRefused(describe(error)) from None


def _known(people: dict[str, _Entry], name: str) -> _Entry:
    if name not in people:
        raise CommandRefused(f"there is no user {name[:MAX_NAME]!r}: `sudo opencode-gateway users list` names them")
    return people[name]
