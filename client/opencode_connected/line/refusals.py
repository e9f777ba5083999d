"""What a refusal of the relay's means to a person: the next step, and whether trying again helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_connected import updating
from opencode_connected.line.errors import LineNameTaken, LineRefused
from opencode_connected.line.ssh_errors import KEY_REFUSED

if TYPE_CHECKING:
    from opencode_connected.line import protocol

_REMEDIES: Final[dict[protocol.ErrorCode, str]] = {
    "bad-name": "set INSTANCE_NAME to another name",
    "bad-port": "set the ports that the relay's administrator gave you",
    "bad-hello": updating.OLDER_SIDE,
    "bad-directory": "remove or repair that directory on the relay, or set RELAY_REGISTRY_DIR to another one",
    "exposed": "until then anybody who reaches the relay would reach OpenCode",
    "not-carrying": "the line tries again by itself",
    "write-failed": "free space on the relay, or make the directory writable; the line tries again by itself",
    "not-allowed": "ask the relay's administrator",
    "unavailable": "the line tries again by itself",
}
_LASTING: Final = frozenset({"bad-name", "bad-hello", "bad-directory", "exposed", "not-allowed"})


def turned_away(refusal: protocol.RefusalReply, *, is_enrolled: bool) -> LineRefused:
    """Return why the relay would not even begin: it is about who we are, or about its own state, which may pass."""
    is_lasting = refusal.code == "not-allowed"
    if is_lasting:
        remedy = KEY_REFUSED if is_enrolled else "run `opencode-connected enroll` and do what it says"
    else:
        remedy = "the line tries again by itself"
    return LineRefused(refusal.message, code=refusal.code, hop="account", remedy=remedy, permanent=is_lasting)


def refused_by(refusal: protocol.RefusalReply, name: str = "") -> LineRefused:
    """Return why the relay did not do what it was asked; `name`: what this instance is, or wants to be, called."""
    if refusal.code == "name-taken":
        return LineNameTaken(name, refusal.holder or "another instance")
    return LineRefused(
        refusal.message, code=refusal.code, remedy=_REMEDIES[refusal.code], permanent=refusal.code in _LASTING
    )
