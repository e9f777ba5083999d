"""Checks a login: how often may be tried, the password, the one-time code."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio.to_thread

from opencode_gateway.errors import GatewayError
from opencode_gateway.people.users import known_as
from opencode_gateway.sign_in.one_time_codes import OneTimeCodes
from opencode_gateway.sign_in.passwords import HashingBusy, Passwords
from opencode_gateway.sign_in.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_gateway.people.users import User, Users
    from opencode_gateway.sign_in.step import Kind

log = logging.getLogger(__name__)


class WrongLogin(GatewayError):
    """Name, password or code is not right. Which, nobody is told."""


@dataclass(frozen=True)
class Typed:
    """What came with the form."""

    name: str
    password: str = field(repr=False)
    code: str = field(default="", repr=False)
    address: str = ""
    device: str | None = None
    """See `Throttle.admit`."""
    window: str | None = None


class Logins:
    """Everything that decides about a login with a password.

    Args:
        passwords, throttle: made here, unless the caller has others.
        clock: seconds since the epoch, for one-time codes.
    """

    def __init__(
        self,
        users: Users,
        *,
        passwords: Passwords | None = None,
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.kind: Kind = "password"
        self.users = users
        self._passwords = passwords or Passwords()
        self._throttle = throttle or Throttle()
        self._codes = OneTimeCodes(clock)

    async def check(self, typed: Typed) -> User:
        """Return who that is.

        Raises:
            WrongLogin: nobody, or somebody who is disabled.
            Throttled: too many attempts; this one was not looked at.
            Busy: too many at this moment; the same.
            ConfigError: the file of users is damaged.
        """
        name = known_as(typed.name)
        user = self.users.load().get(name)
        attempt = self._throttle.admit(
            name, exists=user is not None, address=typed.address, device=typed.device, window=typed.window
        )
        try:
            is_right = await self._passwords.check(
                user.password_hash if user else None, typed.password, known_device=attempt.known_device
            )
        except HashingBusy:
            attempt.give_back()
            raise
        # The code last: a mistyped password does not use it up.
        if user is None or not is_right or user.disabled or not self._has_code(user, typed.code):
            raise WrongLogin("name, password or one-time code is not right")
        attempt.give_back()
        if self._passwords.is_outdated(user.password_hash):
            await anyio.to_thread.run_sync(self._renew, user, typed.password)
        return self.users.load().get(name, user)

    def _has_code(self, user: User, code: str) -> bool:
        return user.totp_secret is None or self._codes.accept(user.name, user.totp_secret, code)

    def _renew(self, user: User, password: str) -> None:
        try:
            self.users.replace_hash(user.name, user.password_hash, self._passwords.hash(password))
        except GatewayError as error:
            log.warning("the password hash of %s stays as it is: %s", user.name, error)
