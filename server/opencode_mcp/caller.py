"""Who makes a call: as the parent of this process says in the call's `_meta`, or the account of the process.

Whoever starts the server says at its start (`RELAY_CALLERS=told`) that it tells the caller of each call, as the
gateway does. Without that word nothing of the kind is believed: a client can write into `_meta` what it likes.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field, ValidationError

if TYPE_CHECKING:
    from mcp.server.mcpserver import Context

    from opencode_fleet.fleet import Fleet

KEY: Final = "opencode-relay/caller"
OBSERVE, APPROVE, DRIVE = "observe", "approve", "drive"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls tools."""

    login: str
    may: frozenset[str]
    """Of `observe`, `approve` and `drive`."""


NOBODY: Final = Caller("", frozenset())
"""Of whom nothing was said, by a parent that says so of each call."""


class _Said(BaseModel):
    login: str = Field(min_length=1, max_length=400)
    may: frozenset[str] = Field(max_length=10)


def account() -> Caller:
    """Return the account of this process: its client may whatever the account may."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # as in a container
        name = f"uid {os.geteuid()}"
    return Caller(name, frozenset({OBSERVE, APPROVE, DRIVE}))


def caller_of(ctx: Context[Fleet, Any], *, own: Caller, told: bool) -> Caller:
    """Return who makes this call: `own`, or who the parent of this process says if it does so of each call."""
    if not told:
        return own
    meta: Any = ctx.request_context.meta or {}
    try:
        said = _Said.model_validate(meta.get(KEY))
    except ValidationError:
        return NOBODY
    return Caller(said.login, said.may)
