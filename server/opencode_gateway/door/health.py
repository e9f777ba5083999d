"""`/healthz`: whether every child answers, asked of itself at that moment.

200 and `ok`, or 503 and one line that names the servers that do not answer. Nothing else is said.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import anyio
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_gateway.calls.children import Children, ServerChild

ASK_SECONDS: Final = 5.0
"""How long a child may take to answer. Docker's own limit for a health command is longer."""

_log = logging.getLogger(__name__)


class GatewayHealth:
    """Asks the children. Requests that come while they are being asked share that answer."""

    def __init__(self, children: Children, seconds: float = ASK_SECONDS) -> None:
        self._children = children
        self._seconds = seconds
        self._asking: asyncio.Task[list[str]] | None = None

    async def endpoint(self, _request: Request) -> Response:
        """Answer `/healthz`."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._silent())
        silent = await asyncio.shield(self._asking)
        if silent:
            return PlainTextResponse(f"no answer from: {', '.join(silent)}\n", 503)
        return PlainTextResponse("ok\n")

    async def _silent(self) -> list[str]:
        """Return the names of the servers that do not answer."""
        answers = await asyncio.gather(*(self._answers(child) for child in self._children.all))
        return [child.name for child, answered in zip(self._children.all, answers, strict=True) if not answered]

    async def _answers(self, child: ServerChild) -> bool:
        try:
            with anyio.fail_after(self._seconds):
                await child.ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, the child does not answer
            _log.warning("the server %s does not answer: %s", child.name, str(error) or type(error).__name__)
            return False
        return True
