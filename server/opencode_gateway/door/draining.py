"""The end of the service, as requests see it: no new ones are taken, and none that runs is left without an answer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from starlette.responses import PlainTextResponse

from opencode_gateway.calls.ending import Ending
from opencode_gateway.door.guards import HEALTH_PATH

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

RETRY_SECONDS: Final = 5
"""When a restart is over, mostly."""
ANSWER_SECONDS: Final = 1.0
"""For what is to be said when the time is over; it is at hand."""

_log = logging.getLogger(__name__)


class Draining:
    """ASGI middleware, outermost. It serves until it is told to drain."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._ending = Ending()
        self.has_begun = False
        self._running = 0
        self._none_runs = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self.has_begun:
            told = "draining\n" if scope["path"] == HEALTH_PATH else "the gateway is being restarted; try again\n"
            headers = {"Retry-After": str(RETRY_SECONDS), "Cache-Control": "no-store", "Connection": "close"}
            await PlainTextResponse(told, 503, headers)(scope, receive, send)
            return
        self._running += 1
        self._none_runs.clear()
        try:
            await self._app(self._ending.put_into(scope), receive, send)
        finally:
            self._running -= 1
            if not self._running:
                self._none_runs.set()

    async def drain(self, seconds: float) -> None:
        """Take no more requests; return when none runs. Those that run after `seconds` are told what goes on."""
        self.has_begun = True
        self._ending.come_near()
        if not self._running:
            return
        _log.info("draining: %d requests run, and have %g s", self._running, seconds)
        if not await self._all_answered(seconds):
            _log.warning("draining: %d requests are answered with what goes on", self._running)
            self._ending.come()
            await self._all_answered(ANSWER_SECONDS)

    async def _all_answered(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._none_runs.wait()
        except TimeoutError:
            return False
        return True
