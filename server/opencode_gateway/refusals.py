"""Why a client was refused, in words for its person and for the owner of the relay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "window",  # no enrolment window is open
    "redirect",  # no redirect address of the client's is allowed
    "document",  # its client-id document cannot be had, or does not say what it must
    "unknown",  # it is not registered here
    "authentication",  # its secret or assertion is wrong
    "limit",  # too many registered
    "origin",  # a web page of an origin that is not allowed
    "request",  # what it asked is not in order
]


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
