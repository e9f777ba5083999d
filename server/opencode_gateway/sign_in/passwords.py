"""Passwords as argon2id hashes, and how much hashing may go on at once.

A hash takes 64 MiB and some 100 ms of a processor. Devices that somebody logged in from before have a place of their
own in the queue, so that a crowd of strangers cannot hold them up; both together use 128 MiB at most.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final

import anyio.to_thread
from argon2 import Parameters, PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY

from opencode_gateway.errors import CommandRefused, GatewayError

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 1024
"""Both in characters, as NFC."""
PASSWORD_RULE: Final = f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters."
_MAX_TYPED: Final = 4 * MAX_LENGTH
"""Characters. Decomposed, a letter can be four."""
_MAX_WAITING: Final = 8
"""In each queue: under a second's work."""


class HashingBusy(GatewayError):
    """More people log in at this moment than can be checked."""


def normalised(password: str) -> str:
    """Return the password as it counts: devices send the same letter composed or not."""
    return unicodedata.normalize("NFC", password)


def _encoded(password: str) -> bytes:
    return normalised(password).encode(errors="replace")


class Passwords:
    """Hashes passwords and checks them.

    Args:
        parameters: how much work a hash is. Tests take less.
    """

    def __init__(self, parameters: Parameters = RFC_9106_LOW_MEMORY) -> None:
        self._hasher = PasswordHasher.from_parameters(parameters)
        self._nobodys = cache(lambda: self._hasher.hash("nobody has this password"))
        self._places = {True: anyio.CapacityLimiter(1), False: anyio.CapacityLimiter(1)}
        self._here = {True: 0, False: 0}
        """Being checked or waiting for it. A limiter's own count begins too late for many that come at once."""

    def hash(self, password: str) -> str:
        """Return the hash to keep. Raises `CommandRefused` for a password that is too short or too long."""
        length = len(normalised(password))
        if not MIN_LENGTH <= length <= MAX_LENGTH:
            raise CommandRefused(
                f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters, this one {length}: choose another"
            )
        return self._hasher.hash(_encoded(password))

    async def check(self, password_hash: str | None, password: str, *, known_device: bool) -> bool:
        """Tell whether it is the password. None takes as long as anybody's hash, and is never right.

        Raises:
            Busy: too many wait already.
        """
        if self._here[known_device] > _MAX_WAITING:
            raise HashingBusy("too many people log in at this moment")
        self._here[known_device] += 1
        try:
            return await anyio.to_thread.run_sync(
                self._is_right, password_hash, password, limiter=self._places[known_device]
            )
        finally:
            self._here[known_device] -= 1

    def _is_right(self, password_hash: str | None, password: str) -> bool:
        # What nobody can have set is compared with nothing: its length must not cost more.
        candidate = password if len(password) <= _MAX_TYPED else ""
        try:
            self._hasher.verify(password_hash or self._nobodys(), _encoded(candidate))
        except (VerifyMismatchError, InvalidHashError):
            return False
        return password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Tell whether it was made with other parameters than hashes are made with now."""
        return self._hasher.check_needs_rehash(password_hash)
