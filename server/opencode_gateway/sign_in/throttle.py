"""How many logins are tried before somebody must wait, such that nobody can make the owner wait.

Guessing is bounded by three budgets that all strangers draw on: of their address, of the account, of everybody. The
last two can be emptied on purpose, so whoever can show that he is no stranger draws on one that nobody else reaches:

- a browser that somebody logged in from before holds a signed cookie for that account, with a budget of its own
  (OWASP: "Slow Down Online Guessing Attacks with Device Cookies"), whatever else comes from its address;
- on a new device, who can run commands at the relay types the code of the enrolment window that is open, which
  `opencode-gateway clients allow` prints.

What is left: during a storm, somebody on a new device who has no access to the relay waits for its end.

An attempt is counted before the password is looked at, and given back when it was right: many at once count, too.
All of it lies in memory, bounded; a restart forgets it, and an attacker cannot cause one. Time is the monotonic
clock's: whoever sets the machine's clock, or corrects it, makes nobody wait.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opencode_gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

_MAX_KEYS: Final = 10_000
"""For each kind of key; what was used longest ago goes first."""
_UNKNOWN_ACCOUNTS: Final = 256
"""Budgets that the names of nobody share, so that they too run dry, and cannot fill the memory."""
_CODE_LENGTH: Final = 8


class Throttled(GatewayError):
    """Too many attempts; the password was not looked at. `wait` is in seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"too many attempts: wait {wait:.0f} s")
        self.wait = wait


@dataclass(frozen=True)
class Budget:
    """So many attempts at once, and one more every so many seconds."""

    attempts: int
    seconds: float


DEVICE: Final = Budget(10, 360)
ADDRESS: Final = Budget(10, 60)
ACCOUNT: Final = Budget(20, 300)
"""Strangers get 300 guesses on the first day, and 288 on each that follows."""
EVERYBODY: Final = Budget(60, 2)
"""What strangers may cost: a hash is up to two processors for some 100 ms."""
WINDOW: Final = Budget(10, 60)


class Buckets:
    """One budget for each key, in bounded memory.

    Args:
        clock: seconds; one that nobody sets.
    """

    def __init__(
        self, budget: Budget, clock: Callable[[], float] = time.monotonic, max_keys: int = _MAX_KEYS
    ) -> None:
        self._budget = budget
        self._clock = clock
        self._max_keys = max_keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()
        """When the budget will be whole again (a generic cell rate). A key that is missing has all of it."""

    def wait(self, key: Hashable) -> float:
        """Return for how many seconds there is nothing left; 0 if there is something."""
        missing = self._full_at.get(key, 0.0) - self._clock()
        return max(0.0, missing - (self._budget.attempts - 1) * self._budget.seconds)

    def take(self, key: Hashable) -> None:
        """Count an attempt."""
        self._full_at[key] = max(self._full_at.get(key, 0.0), self._clock()) + self._budget.seconds
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._max_keys:
            self._full_at.popitem(last=False)

    def give_back(self, key: Hashable) -> None:
        """Take an attempt's count back."""
        if key in self._full_at:
            self._full_at[key] -= self._budget.seconds

    def __len__(self) -> int:
        return len(self._full_at)


class Attempt:
    """An attempt that was admitted."""

    def __init__(self, taken: Iterable[tuple[Buckets, Hashable]], *, known_device: bool) -> None:
        self._taken = tuple(taken)
        self.known_device = known_device
        """Not a stranger: for the queue of its own that its hashing takes."""

    def give_back(self) -> None:
        """Take its count back: it was right, or was not looked at."""
        for buckets, key in self._taken:
            buckets.give_back(key)


class Throttle:
    """Admits attempts to log in.

    Args:
        clock: seconds; one that nobody sets.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._salt = secrets.token_bytes(16)
        self._devices = Buckets(DEVICE, clock)
        self._windows = Buckets(WINDOW, clock)
        self._addresses = Buckets(ADDRESS, clock)
        self._accounts = Buckets(ACCOUNT, clock)
        self._everybody = Buckets(EVERYBODY, clock)

    def admit(
        self, account: str, *, exists: bool, address: str, device: str | None = None, window: str | None = None
    ) -> Attempt:
        """Count an attempt and let it go on.

        Args:
            account: the name that was typed.
            exists: whether somebody has this name.
            address: where it comes from.
            device: of the cookie that this account's login left in this browser.
            window: the code of the open window, if it was typed.

        Raises:
            Throttled: not before some time. Nothing was counted.
        """
        own: list[tuple[Buckets, Hashable]] = []
        if device is not None:
            own.append((self._devices, (account, device)))
        if window is not None and exists:
            own.append((self._windows, (account, window)))
        for buckets, key in own:
            if not buckets.wait(key):
                buckets.take(key)
                return Attempt([(buckets, key)], known_device=True)
        shared: list[tuple[Buckets, Hashable]] = [
            (self._addresses, network(address)),
            (self._accounts, account if exists else self._nobodys(account)),
        ]
        everybody = (self._everybody, None)
        wait = max(buckets.wait(key) for buckets, key in (*shared, everybody))
        if wait:
            raise Throttled(wait)
        for buckets, key in (*shared, everybody):
            buckets.take(key)
        # Work that was done is not given back.
        return Attempt(shared, known_device=False)

    def _nobodys(self, account: str) -> int:
        digest = hashlib.blake2b(account.encode(errors="replace"), key=self._salt, digest_size=4).digest()
        return int.from_bytes(digest) % _UNKNOWN_ACCOUNTS


def network(address: str, bits: int = 64) -> str:
    """Return what one subscriber has: an IPv4 address, a /64 of IPv6, or of so many bits; anything else as it is."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address):
            if parsed.ipv4_mapped is None:
                return str(ipaddress.IPv6Network((int(parsed), bits), strict=False))
            return str(parsed.ipv4_mapped)
    return address[:64]


def window_code(key: bytes, opened_at: float) -> str:
    """Return the code of the window that was opened then, as commands print it: `ABCD-EFGH`.

    It is made from the service's own key, so that nobody else can, and nothing needs to be stored.
    """
    digest = hmac.digest(key, f"window-code {opened_at!r}".encode(), "sha256")
    code = base64.b32encode(digest).decode()[:_CODE_LENGTH]
    return f"{code[:4]}-{code[4:]}"


def is_window_code(typed: str, code: str) -> bool:
    """Tell whether somebody typed this code, in whatever way it is usually written."""
    letters = "".join(letter for letter in typed[:64].upper() if letter.isalnum())
    meant = letters.replace("0", "O").replace("1", "I")
    return hmac.compare_digest(meant.encode(), code.replace("-", "").encode())
