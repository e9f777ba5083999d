"""Who may come in from an identity provider: `sign_in.users` of `gateway.json`, by verified e-mail address."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from opencode_gateway.errors import ConfigError
from opencode_gateway.people.directory import Person

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_gateway.capabilities import Capability

_ADDRESS: Final = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,190}")


class PersonRefused(Exception):
    """Somebody is not let in. The message is for them: one sentence with the next step."""


class ListedPeople:
    """The list, read at the start. A change counts from a restart on, and then at each use of a token.

    Args:
        users: capabilities by address, as `sign_in.users` has them.

    Raises:
        ConfigError: an address in the list can never match.
    """

    def __init__(self, users: Mapping[str, tuple[Capability, ...]]) -> None:
        for address in users:
            if _plain(address) != address:
                raise ConfigError(
                    f"sign_in.users: {address[:200]!r} must be an e-mail address in lower case, of ASCII"
                )
        self._people = {address: Person(address, address, held) for address, held in users.items()}

    def find(self, login: str) -> Person | None:
        """See `Directory`."""
        return self._people.get(login)

    def knows(self, login: str) -> bool:
        """See `Directory`."""
        return login in self._people

    def admit(self, address: object, *, verified: object, provider: str) -> str:
        """Return the login of somebody who just proved at `provider` who they are.

        Args:
            address: as it came from the provider.
            verified: whether the provider says that it is theirs; whatever is not `True` means that it does not.
            provider: its name, for people.

        Raises:
            PersonRefused: the address is missing, odd, not verified or not in the list.
        """
        if address is None or address == "":
            raise PersonRefused(
                f"{provider} gave no e-mail address for this account: add one there, and connect again"
            )
        known = _plain(address)
        if known is None:
            raise PersonRefused(f"{provider} gave an e-mail address for this account that cannot be used here")
        if verified is not True:
            raise PersonRefused(f"{known} is not verified at {provider}: verify it there, and connect again")
        if known not in self._people:
            raise PersonRefused(
                f"{known} is not among the users of this gateway: the owner adds them to sign_in.users"
            )
        return known


def _plain(address: object) -> str | None:
    """Return the form in which addresses are compared: lower case.

    ASCII alone: other letters have more than one lower case, and look like each other. None for anything else.
    """
    return address.lower() if isinstance(address, str) and _ADDRESS.fullmatch(address) else None
