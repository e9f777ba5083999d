"""What a passkey signs: made here, good once, for five minutes, for one session and one purpose.

A challenge says itself what it is for, and that we made it, so nothing is kept of those that nobody answers. It is

    nonce (16 bytes) · end (8 bytes) · mark (32 bytes) · claim (32 bytes)

`claim` is the SHA-256 of what it is for, which whoever has a proof can make again; `mark` is an HMAC over all of it
and the session. The key is this process's alone: what was begun before a restart is begun anew.
What a person answered makes all of theirs void that were made before it, so one moment of each is all that is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS: Final = 300
"""From the button to the answer."""
_SECOND: Final = 1_000_000
"""In the unit of ends."""
_NONCE: Final = 16
_END: Final = 8
_HASH: Final = 32
_LENGTH: Final = _NONCE + _END + 2 * _HASH

Claim = tuple[str | list[str], ...]
"""What a challenge is for; the first word is its purpose."""


class Stale(Exception):
    """A challenge is not ours, of another session, for something else, over, or older than one that was answered."""


def claimed(claim: Claim) -> bytes:
    """Return the claim as it is in a challenge: the SHA-256 of it as JSON, ASCII and without blanks."""
    return hashlib.sha256(json.dumps(claim, ensure_ascii=True, separators=(",", ":")).encode()).digest()


class Challenges:
    """Makes challenges and takes each back once.

    Args:
        clock: seconds; one that nobody sets.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = secrets.token_bytes(_HASH)
        self._clock = clock
        self._last = 0
        """The end of the last one; no two have the same."""
        self._answered: dict[str, int] = {}
        """The end of the last one that each person answered, in microseconds."""

    def make(self, session: str, claim: Claim) -> bytes:
        """Return a new one."""
        end = self._last = max(self._now() + SECONDS * _SECOND, self._last + 1)
        begun = secrets.token_bytes(_NONCE) + end.to_bytes(_END)
        return begun + self._mark(begun, session, claim) + claimed(claim)

    def check(self, challenge: bytes, session: str, claim: Claim) -> None:
        """Look at one that came back, before its signature is looked at. Raises `Stale`."""
        begun = challenge[: _NONCE + _END]
        meant = begun + self._mark(begun, session, claim) + claimed(claim)
        if len(challenge) != _LENGTH or not hmac.compare_digest(challenge, meant):
            raise Stale
        if _end(challenge) <= self._now():
            raise Stale

    def spend(self, challenge: bytes, login: str) -> None:
        """Take one that this person has signed. Raises `Stale`."""
        end = _end(challenge)
        if end <= self._answered.get(login, 0):
            raise Stale
        self._answered[login] = end

    def _now(self) -> int:
        return int(self._clock() * _SECOND)

    def _mark(self, begun: bytes, session: str, claim: Claim) -> bytes:
        return hmac.digest(self._key, begun + claimed(claim) + session.encode(errors="replace"), "sha256")


def _end(challenge: bytes) -> int:
    return int.from_bytes(challenge[_NONCE : _NONCE + _END])
