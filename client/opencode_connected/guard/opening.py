"""The guard's own routes by which directories are opened and closed from afar (docs/contract.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from opencode_connected.guard.bodies import fields, text
from opencode_connected.guard.policy import MAX_DIRECTORY, Right
from opencode_connected.guard.refusals import RequestRefused
from opencode_connected.guard.routes import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

_BODY = fields({"directory": text(MAX_DIRECTORY)}, "directory")
_OPEN = Route("POST", "/opencode-relay/open", "open", Right.DRIVE, body=_BODY)
_CLOSE = Route("POST", "/opencode-relay/close", "close", Right.DRIVE, body=_BODY)
_ONE_PROCESS_EACH = (
    "OpenCode 1 runs in one directory for each process: start opencode-connected at the desk in the other one, "
    "or install OpenCode 2 there and run `opencode-connected service install`"
)


class OpensDirectories(Protocol):
    """Opens directories of this machine for who asks from afar, and closes them again.

    Both raise `RequestRefused`, with the next step; nothing has changed then.
    """

    async def open(self, directory: str) -> dict[str, object]:
        """Open a directory; return which it is, what it is called, and whether it was `opened` just now."""

    async def close(self, directory: str) -> dict[str, object]:
        """Close what was opened from afar; return which it is, and whether it can `still` be seen."""


def find(method: str, path: str) -> Route | None:
    """Return the route that opens or closes, where it is one of these."""
    return next((route for route in (_OPEN, _CLOSE) if (route.method, route.path) == (method, path)), None)


def verbs(generation: int) -> tuple[str, ...]:
    """Return what these routes are called for an agent that has them."""
    return (_OPEN.verb, _CLOSE.verb) if generation > 1 else ()


async def done(route: Route, body: Mapping[str, object], opener: OpensDirectories | None) -> dict[str, object]:
    """Do what the route is for, and return the answer.

    Raises:
        Refused: it is not allowed, or not possible.

    """
    if opener is None:
        raise RequestRefused("open", _ONE_PROCESS_EACH)
    directory = str(body["directory"])
    return await (opener.open(directory) if route is _OPEN else opener.close(directory))
