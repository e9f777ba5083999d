"""What the authorization server knows of people, however they log in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opencode_gateway.capabilities import Capability


@dataclass(frozen=True)
class Person:
    """Somebody who may come in, as they are at the moment."""

    login: str
    """By which they are known in sessions, in the audit log and to commands."""
    name: str
    """For people to read."""
    capabilities: tuple[Capability, ...]
    """What a token of theirs may do at most."""
    credentials: str = field(default="", repr=False)
    """What they log in with at the gateway itself. Where it changed, a login from before is void. Never shown."""


class Directory(Protocol):
    """Everybody who may come in."""

    def find(self, login: str) -> Person | None:
        """Return who that is; None for somebody who may not come in, or not any more.

        Raises:
            ConfigError: it cannot be read.
        """

    def knows(self, login: str) -> bool:
        """Tell whether somebody is called so, also one who may not come in. Raises `ConfigError`."""
