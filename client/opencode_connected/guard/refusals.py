"""What is answered to whom is refused, and what the log says about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.guard.policy import Right

_LOG_SECONDS = 60.0
"""Between two lines about the same kind of refusal: whoever asks without end fills no disk."""
NOT_OPENED = (
    "that directory is not opened on that laptop: start opencode-connected in it, "
    "or name it in `directories` of its config.toml"
)


class RequestRefused(Exception):
    """It is not let through; the message is one sentence for the person afar, with the next step.

    `kind` groups refusals in the log; `right` names the right that is missing, where that is why.
    """

    status = 403
    name = "GuardRefused"

    def __init__(self, kind: str, message: str, *, right: Right | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.right = right

    def response(self) -> web.Response:
        """Return the answer (docs/contract.md)."""
        data = {"message": self.message} | ({"right": str(self.right)} if self.right else {})
        return web.json_response({"name": self.name, "data": data}, status=self.status)


class AgentUnavailable(RequestRefused):
    """The agent does not answer, or not in a way that may be passed on."""

    name = "AgentUnavailable"

    def __init__(self, message: str, *, status: int = 502) -> None:
        super().__init__("agent", message)
        self.status = status


class TooLong(AgentUnavailable):
    """The agent answers more than is read as a whole, and so nothing of it goes on."""

    name = "AnswerTooLarge"


class RefusalLog:
    """Says each kind of refusal once a minute at most, with how many were not said."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def add(self, kind: str, message: str) -> None:
        """Note a refusal; kinds are few and ours."""
        now = time.monotonic()
        if now - self._said.get(kind, -_LOG_SECONDS) < _LOG_SECONDS:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        more = f" ({unsaid} more like it since)" if unsaid else ""
        self._log(f"guard: {printable(message, limit=300)}{more}")
