"""Why a client was refused, in words for its person and for the owner of the relay.

`refusal_log` keeps the last ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

Kind = Literal[
    "window",  # no enrolment window is open
    "redirect",  # no redirect address of the client's is allowed
    "document",  # its client-id document cannot be had, or does not say what it must
    "unknown",  # it is not registered here
    "authentication",  # its secret or assertion is wrong
    "limit",  # too many registered
    "origin",  # a web page of an origin that is not allowed
    "host",  # it asked for another name than this relay's
    "request",  # what it asked is not in order
]
_COMMAND: Final = re.compile(r"`((?:sudo )?opencode-[^`]+)`")
_MAX_TOLD: Final = 500
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One refusal."""

    kind: Kind
    reason: str
    """A clause for people, without a period: what is not as it must be."""
    remedy: str
    """A sentence for the owner: the command or the setting that helps."""
    client: str = ""
    """How the client calls itself, as it may be shown: its name, its id or where it wants answers sent."""
    address: str = ""
    """Where the request came from."""

    @property
    def command(self) -> str | None:
        """The command that the remedy names, where it names one."""
        found = _COMMAND.search(self.remedy)
        return found[1] if found else None

    @property
    def told(self) -> str:
        """Reason and remedy as `error_description` may hold them: RFC 6749 has no quotes and backslashes there."""
        whole = f"{self.reason}: {self.remedy}" if self.remedy else self.reason
        plain = whole.replace('"', "'").replace("\\", "/")
        return "".join(letter if " " <= letter <= "~" else "?" for letter in plain)[:_MAX_TOLD]
