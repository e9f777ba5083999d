"""What a login leaves behind for the session that comes of it, whichever way it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from opencode_gateway.errors import GatewayError

Kind = Literal["password", "github", "google", "oidc"]
"""The modes of `sign_in`."""


@dataclass(frozen=True)
class Proof:
    """That somebody has just proved who they are."""

    kind: Kind = "password"
    renewal: bytes | None = field(default=None, repr=False)
    """Encrypted: with what the provider is asked again. None: it cannot be."""
    recheck_at: float | None = None
    """Until when it counts, in seconds since the epoch. Then the provider is asked again, or the session ends.
    None: until the session ends otherwise."""


BY_PASSWORD: Final = Proof()


class LoginEnded(Exception):
    """A login does not count any longer. The message is for the client; `why` is for the audit log."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


class ProviderFailed(GatewayError):
    """A provider does not answer, or not as it must. Nobody is let in on it; sessions may go on once it is back.

    Args:
        renewal: encrypted, what the provider must be asked with from now on, if that changed before it failed.
    """

    def __init__(self, message: str, renewal: bytes | None = None) -> None:
        super().__init__(message)
        self.renewal = renewal


class Renewing(Protocol):
    """A way to log in at somebody else's, who can be asked whether a login still counts."""

    @property
    def kind(self) -> Kind:
        """Its mode."""

    async def again(self, login: str, renewal: bytes) -> Proof:
        """Ask about somebody's login.

        Raises:
            Ended: it does not count any longer.
            ProviderFailed: that cannot be established now.
        """
