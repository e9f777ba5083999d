"""One-time codes of an authenticator app (TOTP, RFC 6238): six digits, a new one every 30 seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pyotp

if TYPE_CHECKING:
    from collections.abc import Callable

ISSUER: Final = "opencode-relay"
_DIGITS: Final = 6


def new_secret() -> str:
    """Return a random secret in base32, for one user's app."""
    return pyotp.random_base32()


def app_uri(name: str, secret: str) -> str:
    """Return what the app's QR code holds."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


class OneTimeCodes:
    """Checks codes. Each code works once; using one invalidates all older ones.

    That is remembered for each user until the service ends; a code is of use for 90 seconds at most.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._used: dict[str, int] = {}
        """By user's name: the step of the latest code that was accepted."""

    def accept(self, name: str, secret: str, typed: str) -> bool:
        """Tell whether it is the code of now, or of the step before or after, and use it up."""
        code = "".join(typed[:32].split())
        if len(code) != _DIGITS or not code.isascii():
            return False
        totp = pyotp.TOTP(secret)
        now = int(self._clock()) // totp.interval
        for step in range(now - 1, now + 2):
            if pyotp.utils.strings_equal(code, totp.generate_otp(step)) and step > self._used.get(name, -1):
                self._used[name] = step
                return True
        return False
