"""Who makes a call: as the parent of this process says in the call's `_meta`, or the account of the process.

Whoever starts the server says at its start (`RELAY_CALLERS=told`) that it tells the caller of each call, as the
gateway does. Without that word nothing of the kind is believed: a client can write into `_meta` what it likes.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from opencode_mcp.views.ways import Ways

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
    page: str = ""
    """The base address of the pages on which they decide; empty where there are none."""
    decides: Literal["anywhere", "page"] = "anywhere"
    """`page`: of an ask they may only be told the link."""
    always: bool = True
    """Whether they may say `always` in the chat."""
    shown: str = ""
    """The digest of the ask that the page had before them: nothing else is settled by this call."""

    def ways(self) -> Ways:
        """Return how they settle asks."""
        return Ways(self.page, self.decides == "page" and not self.shown, self.always or bool(self.shown))


NOBODY: Final = Caller("", frozenset())
"""Of whom nothing that can be read was said, by a parent that says so of each call: they settle nothing."""


class _Said(BaseModel):
    """What a parent says. A caller of whom it says anything else is nobody: nothing is allowed by a mistake."""

    model_config = ConfigDict(strict=True)

    login: str = Field(min_length=1, max_length=400)
    may: list[str] = Field(max_length=10)
    page: str = Field("", max_length=300, pattern=r"^(https?://[^\s\p{C}/?#<>]+)?$")
    decides: Literal["anywhere", "page"] = "anywhere"
    always: bool = True
    shown: str = Field("", pattern=r"^([0-9a-f]{32})?$")

    @model_validator(mode="after")
    def _names_the_page(self) -> _Said:
        if not self.page and (self.decides == "page" or not self.always):
            raise ValueError("what is decided on a page alone needs the page")
        return self


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
    return Caller(said.login, frozenset(said.may), said.page, said.decides, said.always, said.shown)
